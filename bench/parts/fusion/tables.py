"""Result of fusion.py: tables, goals, notes and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.measuring import goal, ratios, save_figure, spread

STACK, COMPILED = "ours", "ours, compiled"
# times as fast as processes that share the device
LEAST_RATIO = {
    "cpu": {"0.4M": 1.3, "1M": 1.15, "10M": 1.05, "50M": 1.05},
    "cuda": {"1M": 10.0, "10M": 4.0, "50M": 1.05},  # for gpu.py
}
LEAST_RATIO_LOW = 2.0  # of ours in bfloat16 on a CPU, beside processes in float32
LEAST_UTILISATION = 0.4  # of the peak in bfloat16, of the largest model
OURS = "#d1495b"
PEERS = {"eager": "#6b7280", "compiled": "#1f6f8b", "vmap": "#b07d2b"}


def result_of(results: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        results: size → measurements of `fusion.measure`.
        about: `measuring.about` with the dtype.
    """
    return {
        "bench": "fusion",
        "about": dict(about),
        "tables": [table for size in results.items() for table in tables_of(*size)],
        "goals": [each for size in results.items() for each in _goals(*size)],
        "notes": _explained(about["dtype"])
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


def _goals(name: str, size: Mapping[str, Any]) -> list[Any]:
    rates = size["rates"]
    sharing, ours = _sharing(rates), rates[ours_of(rates)]
    goals = []
    least = LEAST_RATIO["cpu"].get(name)
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
        if own and peer:
            what = f"{name}: {own}, times as fast as {peer}"
            goals.append(goal(what, ratios(rates[own], rates[peer]).median, least=1.0))
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
    from matplotlib.figure import Figure

    sizes = result["numbers"]
    figure = Figure(figsize=(9, 3.1 * len(sizes) + 0.6))
    axes = figure.subplots(len(sizes), 1, squeeze=False)
    for axis, size in zip(axes.flat, sizes.values(), strict=True):
        _panel(axis, size)
        axis.set_title(_millions(size["parameters"]), fontsize=10)
        axis.set_ylabel("tokens/s of all trials", fontsize=8)
    axes.flat[-1].set_xlabel("K, trials in one process of ours", fontsize=8)
    where = f"{result['about']['device']}, {result['about']['dtype']}, {result['about']['cores']}"
    figure.suptitle(f"{where} cores: medians, with the least and the most", fontsize=10)
    save_figure(figure, path, 130)


def _panel(axis: Any, size: Mapping[str, Any]) -> None:
    """One size."""
    widths = [int(k) for k in size["by_width"]]
    spreads = [spread(own) for own in size["by_width"].values()]
    low, high = [s.low for s in spreads], [s.high for s in spreads]
    axis.fill_between(widths, low, high, color=OURS, alpha=0.2, linewidth=0)
    axis.plot(widths, [s.median for s in spreads], "o-", color=OURS, label="ours, one process")
    sides = {name: spread(own).median for name, own in size["rates"].items()}
    for name, height in sorted(sides.items(), key=lambda side: -side[1]):
        if name not in {"peak", STACK}:
            colour = OURS if name.startswith(STACK) else PEERS[name.partition(",")[0]]
            style = ":" if _is_low(name) else "--" if "processes" in name else "-."
            axis.axhline(height, color=colour, linestyle=style, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(k) for k in widths])
    axis.set_ylim(bottom=0)
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
