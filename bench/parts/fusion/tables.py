"""Result of fusion.py: tables, goals, notes and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.measuring import goal, ratios, spread

STACK, COMPILED = "ours", "ours, compiled"
# times as fast as processes that share the device
LEAST_RATIO = {
    "cpu": {"0.4M": 1.3, "1M": 1.15, "10M": 1.05, "50M": 1.05},
    "cuda": {"1M": 10.0, "10M": 4.0, "50M": 1.05},
}
LEAST_RATIO_LOW = 2.0  # of ours in bfloat16 on a CPU, beside processes in float32
LEAST_UTILISATION = 0.4  # of the peak in bfloat16, of the largest model
OURS, SHARING = "#d1495b", "#1f6f8b"
PEERS = {
    "eager": "#6b7280",
    "compiled": "#3a7d44",
    "compiled, graphs": "#6aa84f",
    "vmap": "#b07d2b",
}


def result_of(
    results: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        results: size → measurements of `fusion.measure`.
        about: device, versions and dtype of the measurement.
        notes: further notes.
    """
    return {
        "bench": "fusion",
        "about": dict(about),
        "tables": [table for size in results.items() for table in tables_of(*size)],
        "goals": [each for size in results.items() for each in _goals(*size, about)],
        "notes": [*_explained(about["dtype"]), *notes]
        + [note for size in results.items() for note in _notes(*size)],
        "numbers": dict(results),
    }


def ours_of(rates: Mapping[str, Any]) -> str:
    """Return the name of our side as a search runs it: on a CPU, a process for each core.

    Compiled ticks come first, if they were measured.
    """
    return next((name for name in rates if name.startswith(f"{STACK}, ")), STACK)


def low(side: str, processes: int) -> str:
    """Return the name of a side whose products are bfloat16, where others are float32."""
    dtype = "mixed_bfloat16" if side in {STACK, COMPILED} else "bfloat16"
    return f"{side}, {dtype}, {processes} processes"


def _is_low(name: str) -> bool:
    return "bfloat16" in name


def _sharing(rates: Mapping[str, Sequence[float]]) -> str | None:
    """Return the fastest side in which processes share the device."""
    names = [name for name in rates if name.startswith("eager, ") and not _is_low(name)]
    return max(names, key=lambda name: spread(rates[name]).median, default=None)


def tables_of(name: str, size: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of one size: all sides, and the stack by K."""
    rates, flops = size["rates"], size["flops_per_token"]
    peak, ours = rates["peak"], rates[ours_of(rates)]
    rows: list[list[Any]] = []
    for side, trials in size["trials"].items():
        own = rates.get(side)
        if side == "peak":
            continue
        if own is None:
            rows.append([side, trials, None, None, None])
            continue
        used = ratios([flops * rate for rate in own], peak)
        rows.append([side, trials, [*spread(own)], _percent(used.median), [*ratios(ours, own)]])
    what = f"{name}: {_millions(size['parameters'])}, {size['model']}"
    columns = ["side", "trials at a time", "tokens/s", "of the peak", f"{ours_of(rates)} is × it"]
    height = spread(peak).median
    by_width = [
        [int(k), [*spread(own)], _percent(spread(own).median * flops / height)]
        for k, own in size["by_width"].items()
    ]
    alone = f"{name}: one process of ours by K, trials at a time"
    return [
        {"title": what, "columns": columns, "rows": rows},
        {"title": alone, "columns": ["K", "tokens/s", "of the peak"], "rows": by_width},
    ]


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3g} million parameters"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _goals(name: str, size: Mapping[str, Any], about: Mapping[str, Any]) -> list[Any]:
    rates, kind = size["rates"], about["kind"]
    sharing, ours = _sharing(rates), rates[ours_of(rates)]
    goals = []
    least = LEAST_RATIO[kind].get(name)
    if sharing and least:
        what = f"{name}: {ours_of(rates)}, times as fast as {sharing}"
        goals.append(goal(what, ratios(ours, rates[sharing]).median, least=least))
    low_ours = next((s for s in rates if s.startswith(STACK) and _is_low(s)), None)
    if sharing and least and low_ours:
        what = f"{name}: {low_ours}, times as fast as {sharing}"
        reached = ratios(rates[low_ours], rates[sharing]).median
        goals.append(goal(what, reached, least=LEAST_RATIO_LOW))
    for own in (ours_of(rates), low_ours):
        peer = next(
            (s for s in rates if s.startswith("compiled, ") and _is_low(s) == (own == low_ours)),
            None,
        )
        if own and peer and kind == "cpu":
            what = f"{name}: {own}, times as fast as {peer}"
            goals.append(goal(what, ratios(rates[own], rates[peer]).median, least=1.0))
    if kind == "cuda" and name == "50M" and about["dtype"] == "bfloat16":
        used = ratios([size["flops_per_token"] * rate for rate in ours], rates["peak"])
        goals.append(goal("50M: share of the bf16 peak", used.median, least=LEAST_UTILISATION))
    return goals


def _explained(dtype: str) -> list[str]:
    return [
        f"Matrices are multiplied in {dtype}. The peak is that of square matrices on the whole "
        "device, measured by turns with the sides; a model's operations are counted as "
        "Architecture.flops_per_token does, 6 per weight and token and those of attention.",
        "eager, compiled: one plain loop of torch's own parts, on a CPU with all cores; of "
        "processes that share it each has one. vmap: torch.func.vmap over stack_module_state, K "
        "models in one process.",
        "mixed_bfloat16: ours with linear layers and head in bfloat16, as engine.dtype: auto takes "
        "on a CPU that is faster with it. bfloat16: the loop under torch.autocast.",
    ]


def _notes(name: str, size: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{name}: the sides' mean training losses of the first {size['updates_checked']} updates "
        f"differ by {size['largest_difference']:.1g} at most ({size['tolerance']:g} is allowed)."
    ]
    if size["ended"]:
        notes.append(f"{name}: {size['ended']}.")
    notes += [f"{name}: {side} was not measured: {why}." for side, why in size["failed"].items()]
    return notes


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Tokens/s over K for each size, with a line for each peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes, kind = result["numbers"], result["about"]["kind"]
    figure, axes = plt.subplots(
        len(sizes), 1, figsize=(7.5, 3.1 * len(sizes) + 0.6), squeeze=False, layout="constrained"
    )
    for axis, size in zip(axes.flat, sizes.values(), strict=True):
        _panel(axis, size)
        axis.set_title(_millions(size["parameters"]), fontsize=10)
        axis.set_ylabel("tokens/s of all trials", fontsize=8)
    axes.flat[-1].set_xlabel("K, trials in one process of ours", fontsize=8)
    where = f"{result['about']['device']}, {result['about']['dtype']}"
    cores = f", {result['about']['cores']} cores" if kind == "cpu" else ""
    figure.suptitle(f"{where}{cores}: medians, with the least and the most", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, size: Mapping[str, Any]) -> None:
    """One size."""
    from matplotlib.ticker import LogLocator

    widths = [int(k) for k in size["by_width"]]
    spreads = [spread(own) for own in size["by_width"].values()]
    low, high = [s.low for s in spreads], [s.high for s in spreads]
    axis.fill_between(widths, low, high, color=OURS, alpha=0.2, linewidth=0)
    axis.plot(widths, [s.median for s in spreads], "o-", color=OURS)
    lines = [(spreads[-1].median, "ours, one process", OURS)]
    for name, own in size["rates"].items():
        if name in {"peak", STACK}:
            continue
        is_ours, height = name.startswith(STACK), spread(own).median
        colour = OURS if is_ours else PEERS.get(name, SHARING)
        axis.axhline(height, color=colour, linestyle="--" if is_ours else "-", linewidth=1.2)
        lines.append((height, name, colour))
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(k) for k in widths])
    heights = [*low, *high, *(height for height, _, _ in lines)]
    is_wide = max(heights) > 10 * min(heights)
    if is_wide:
        axis.set_yscale("log", subs=[])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_ylim(0.8 * min(heights) if is_wide else 0, (1.3 if is_wide else 1.1) * max(heights))
    axis.minorticks_off()
    _label(axis, lines)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _label(axis: Any, lines: list[tuple[float, str, str]]) -> None:
    """Names at the right end of the lines, moved apart where they would touch."""
    axis.figure.canvas.draw()  # now it knows where everything is
    places = axis.transAxes.inverted().transform(
        axis.transData.transform([(1, height) for height, _, _ in lines])
    )[:, 1]
    apart, count = 0.06, len(lines)
    order = sorted(range(count), key=lambda i: places[i])
    below = -apart
    for rank, i in enumerate(order):
        highest = 1.0 - apart * (count - 1 - rank)  # leaves room for those above
        below = min(max(places[i], below + apart), max(highest, below + apart))
        axis.annotate(
            lines[i][1],
            (1, places[i]),
            (1.06, below),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=lines[i][2],
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": lines[i][2],
                "linewidth": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )
