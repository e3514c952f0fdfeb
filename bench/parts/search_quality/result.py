"""Results of search_quality.py: goals, a page and a picture.

Tokens are given in complete trials: the tokens of one trial that is not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Quartiles = tuple[float, float, float]

BUDGETS = (1, 2, 4, 6, 8, 16, 24)  # at which methods are compared
GOAL = 0.01  # of the table's best loss
TENTH = 0.1  # of the tokens of random search
REFERENCE, TOP_K, STEP_LAW = "random · none", "one report, then top k", "Step Law"
DEFAULT, AS_IT_IS = "the file", "the file, 24 trials"
# with a prior, slots → complete trials until the best finished one is within 1 % of the best
WANTED: Mapping[tuple[bool, int], float] = {(True, 4): 4.0, (False, 4): 6.5, (True, 1): 3.0}
_COLOURS = {"random": "0.55", "grid": "tab:brown", "qmc": "tab:orange", "tpe": "tab:blue"}
_COLOURS |= {"gp": "tab:green"}
_STYLES = {
    TOP_K: ("black", "--", 1.3),
    STEP_LAW: ("tab:red", ":", 1.3),
    DEFAULT: ("tab:purple", "-", 2.5),
}


def variant(has_prior: bool, sampler: str, slots: int, defaults: str) -> str:
    """Return the name of a variant of the default."""
    prior = "Step Law as prior" if has_prior else "no prior"
    raced = "; raced defaults" if defaults == "raced" else ""
    return f"{prior}; {sampler}; {slots} slot{'s' if slots > 1 else ''}{raced}"


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return lower quartile, median and upper quartile; a half of infinity is infinity."""
    ordered = sorted(values)
    last = len(ordered) - 1
    values_at = []
    for share in (0.25, 0.5, 0.75):
        low, high = ordered[math.floor(share * last)], ordered[math.ceil(share * last)]
        weight = share * last - math.floor(share * last)
        if weight == 0 or low == high:
            values_at.append(low)
        else:
            values_at.append(high if math.isinf(high) else low + weight * (high - low))
    return (values_at[0], values_at[1], values_at[2])


def curve_points(most: float) -> list[float]:
    """Return the tokens at which curves are drawn, evenly on a log scale from one trial on."""
    return [*np.geomspace(1.0, most, 64).round(3).tolist()]


# the page ---------------------------------------------------------------------------------------


def _regret(value: float) -> str:
    return "—" if math.isinf(value) else f"{100 * value:.2f}"


def _spread(of: Quartiles, text: Any = _regret) -> str:
    return f"{text(of[1])} ({text(of[0])} – {text(of[2])})"


def _tokens(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f}"


def _rows(methods: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, method in methods.items():
        reach = _spread(method["reach"], _tokens) if method["reach"] else ""
        regrets = [_spread(method["regret"][str(b)]) for b in BUDGETS if b <= method["most"]]
        regrets += [""] * (len(BUDGETS) - len(regrets))
        lines.append(f"| {name} | {method['seeds']} | {reach} | {' | '.join(regrets)} |")
    return lines


def table_of(methods: Mapping[str, Any]) -> str:
    """Return a table of methods: tokens to the goal, and regret by tokens."""
    head = "| | seeds | tokens to within 1 % |" + "".join(f" at {b} |" for b in BUDGETS)
    return "\n".join([head, "|---|---:|---:|" + "---:|" * len(BUDGETS), *_rows(methods)])


def goals(results: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the goals of the default combination as text, and True for those that are met."""
    methods = results["methods"]
    mine, reference = methods[DEFAULT]["reach"][1], methods[REFERENCE]["reach"][1]
    share = math.inf if math.isinf(mine) else mine / reference
    wanted = [
        (
            f"{DEFAULT} reaches within 1 % of the table's best after {_tokens(mine)} complete "
            f"trials, {REFERENCE} after {_tokens(reference)}: {_percents(share)} of its tokens, "
            f"at most 10 % wanted",
            share <= TENTH,
        )
    ]
    wanted += [_duel(methods[DEFAULT], methods[rival], rival) for rival in (TOP_K, STEP_LAW)]
    ours, theirs = methods[AS_IT_IS], results["equal_tokens"]
    wanted.append(
        (
            f"{AS_IT_IS}, spends {ours['spent']:.1f} complete trials and ends at "
            f"{_spread(ours['end'])} %, {100 * ours['end_mean']:.2f} % on average; {TOP_K} with as "
            f"many tokens at {_spread(theirs['end'])} %, {100 * theirs['end_mean']:.2f} %",
            ours["end"][1] < theirs["end"][1],
        )
    )
    return wanted + [
        _reached(methods, *of) for of in WANTED if variant(of[0], "tpe", of[1], "full") in methods
    ]


def _reached(methods: Mapping[str, Any], has_prior: bool, slots: int) -> tuple[str, bool]:
    """Compare the variants with one prior and number of slots with the goal."""
    most = WANTED[has_prior, slots]
    tpe, *others = (
        variant(has_prior, sampler, slots, defaults)
        for defaults in ("full", "raced")
        for sampler in ("tpe", "gp")
    )
    best = min((n for n in others if n in methods), key=lambda n: methods[n]["reach"][1])
    text = (
        f"{tpe}: within 1 % after {_spread(methods[tpe]['reach'], _tokens)} complete trials, at "
        f"most {most} wanted; the best variant, {best}, after "
        f"{_spread(methods[best]['reach'], _tokens)}"
    )
    return text, methods[tpe]["reach"][1] <= most


def _duel(mine: Mapping[str, Any], theirs: Mapping[str, Any], rival: str) -> tuple[str, bool]:
    """Compare the default with a rival at equal tokens.

    By means, because medians are often the same row of the table.
    """
    compared = [b for b in mine["regret"] if not math.isinf(theirs["regret"][b][1])]
    median = [b for b in compared if mine["regret"][b][1] < theirs["regret"][b][1]]
    mean = [b for b in compared if mine["mean"][b] < theirs["mean"][b]]
    lost = [b for b in compared if b not in mean]
    text = (
        f"{DEFAULT} beats {rival} at equal tokens: on average at {_listed(mean)}, in the median at "
        f"{_listed(median)} complete trials"
    )
    return (f"{text}; on average not at {_listed(lost)}" if lost else text), not lost


def _percents(share: float) -> str:
    return "no share" if math.isinf(share) else f"{100 * share:.0f} %"


def _listed(numbers: Sequence[str]) -> str:
    return ", ".join(numbers) if numbers else "none"


def page(results: Mapping[str, Any], picture: str) -> str:
    """Return the page as Markdown."""
    about, table = results["about"], results["table"]
    lines = [
        "# Does the search search well?",
        "",
        f"Made by `{about['command']}` on {about['date']} "
        f"({', '.join(f'{k} {v}' for k, v in about['versions'].items())}).",
        "",
        *_method(about, table),
        "",
        f"![regret against tokens]({picture})",
        "",
        "## Goals",
        "",
        *(f"- {'met' if met else '**missed**'}: {words}." for words, met in goals(results)),
        "",
        "## Samplers and schedulers",
        "",
        "Median (quartiles) over the seeds. Tokens in complete trials; regret in % of the table's "
        "best loss; — : nothing had finished.",
        "",
        table_of({n: m for n, m in results["methods"].items() if not m["variant"]}),
        "",
    ]
    variants = {n: m for n, m in results["methods"].items() if m["variant"]}
    if variants:
        lines += ["## The default and variants of it", "", table_of(variants), ""]
    return "\n".join(lines)


def _method(about: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    text = f"""\
Nothing is trained here: {table["rows"]} configurations of `{table["space"]}`, the defaults and
{table["rows"] - 1} points of a scrambled Sobol sequence, were trained to the end beforehand
(`{table["command"]}`, {table["date"]}, {table["device"]}, torch {table["torch"]}), and searches are
replayed on the reports of these trials. Conductor, samplers and schedulers are those of
`tuner search`, with {about["slots"]} slots that train equally fast.

*Best* is the best finished trial so far, by val_loss, and *regret* what it lies above the best of
the table ({table["best"]:.4f}; the defaults reach {table["defaults"]:.4f},
{table["diverged"]} configurations diverged, {table["within_goal"]} finish within 1 % of the best).
The first trial is always the defaults, never stopped but where they are raced. As the slots train
at the same time, hardly anything can finish before as many complete trials' worth of tokens are
spent as there are slots: the baselines, which train one after another, have no such beginning.

A suggestion is snapped to the nearest configuration that the search has not used yet, so late in a
search it may be far away: with {table["rows"]} configurations a sampler cannot refine, only choose.
Distances weigh each parameter by how much it tells about the loss
({", ".join(f"{k} {v:.3g}" for k, v in table["weights"].items())}): the regrets of a configuration
and of its nearest neighbour then differ by a factor of {table["snap_error"]:.2f}, typically; by
{table["snap_error_plain"]:.2f} with equal weights (regrets below 1 % counting as about equal).
The sampler observes the configuration that was used, with its own losses.

*sampler · scheduler* have the settings of `SearchConfig` otherwise, and no priors. *{DEFAULT}* is
`{table["space"]}` as it is, with its sampler, scheduler and priors, but with trials until the
tokens are spent; *{AS_IT_IS}*, ends when the file says.

Baselines: *{TOP_K}* trains random configurations for one report each, for half of its tokens,
and the best of them to the end with the other half (Egele et al. 2024, arXiv:2404.04111); each
budget is a run that knows its budget. *{STEP_LAW}* trains once, with α_max and B by the rule of Li
et al. 2025 (arXiv:2503.04715) and the defaults for the rest; it was trained for
this, not snapped."""
    return text.splitlines()


# the picture ------------------------------------------------------------------------------------


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw regret against tokens, a panel for each scheduler."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    methods = results["methods"]
    searches = {n: m for n, m in methods.items() if " · " in n and not m["variant"]}
    panels = list(dict.fromkeys(name.split(" · ")[1] for name in searches))
    if not panels:  # variants alone
        return
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 4), sharey=True, squeeze=False
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        for name, method in searches.items():
            sampler, scheduler = name.split(" · ")
            if scheduler == panel:
                _line(axis, method, sampler, _COLOURS[sampler])
        for name, (colour, style, width) in _STYLES.items():
            if name in methods:
                _line(axis, methods[name], name, colour, style=style, width=width)
        axis.axhline(100 * GOAL, color="0.8", lw=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", title=panel, xlabel="tokens, in complete trials")
        axis.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axis.set_xticks([], minor=True)
    axes[0][0].set_ylabel("regret, % of the best loss (median)")
    axes[0][0].set_yticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    lines = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
    names = [name for name in (*_COLOURS, *_STYLES) if name in lines]
    figure.legend([lines[n] for n in names], names, loc="lower center", ncol=len(names))
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _percent(values: Sequence[float]) -> list[float]:
    """Return percents of at least 0.1, for a log scale; infinity becomes NaN and is not drawn."""
    return [math.nan if math.isinf(v) else max(100 * v, 0.1) for v in values]


def _line(
    axis: Any,
    method: Mapping[str, Any],
    label: str,
    colour: str,
    style: str = "-",
    width: float = 1.3,
) -> None:
    curve = method["curve"]
    axis.plot(curve["at"], _percent(curve["median"]), style, color=colour, lw=width, label=label)
