"""Results of search_quality.py: goals, tables and a picture.

Tokens are given in complete trials: the tokens of one trial that is not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parts.measuring import goal, save_figure

Quartiles = tuple[float, float, float]

BUDGETS = (1, 2, 4, 6, 8, 16, 24)  # at which methods are compared
GOAL = 0.01  # of the table's best loss
TENTH = 0.1  # of the tokens of random search
REFERENCE, TOP_K, STEP_LAW = "random · none", "one report, then top k", "Step Law"
DEFAULT, AS_IT_IS = "the file", "the file, 24 trials"
PERFECT_ASHA = "perfect sampler, defaults to the end"
_MISLED = "misled: "
LEARNED, COLD = "learned from the atlas", "nothing known"
PERFECT_PROPOSALS = "perfect sampler and proposals"
SLOTS = (1, 2, 4)  # of the searches that say what is possible
LEVELS = (GOAL, 0.05)  # regrets up to which the tokens are counted
LEARNS: Mapping[int, float] = {1: 1.5, 2: 2.3, 4: 4.0}  # slots → complete trials to within 1 %
WORSE = 1.0  # complete trials that misleading sources may cost
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


def bound(what: str, slots: int) -> str:
    """Return the name of a search that says what is possible."""
    return f"{what}; {slots} slot{'s' if slots > 1 else ''}"


def misled(how: str) -> str:
    """Return the name of a search whose sources mislead."""
    return f"{_MISLED}{how}"


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


# the result -------------------------------------------------------------------------------------


def _regret(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.2f}"


def _tokens(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def _spread(of: Sequence[float | None], text: Callable[[float | None], str] = _regret) -> str:
    low, median, high = map(text, of)
    return f"{median} ({low} – {high})"


def _rows(methods: Mapping[str, Any]) -> list[list[Any]]:
    """Return a row for each method: seeds, tokens to the goal, and regret by tokens."""
    return [
        [
            name, method["seeds"],
            _spread(method["reach"], _tokens) if method["reach"] else "",
            *(_spread(method["regret"][str(b)]) if b <= method["most"] else "" for b in BUDGETS),
        ]
        for name, method in methods.items()
    ]  # fmt: skip


def result_of(numbers: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: methods with their summaries, where None is infinity; table; equal_tokens.
        about: `measuring.about` with the study and the slots.
    """
    methods, table, is_bound = numbers["methods"], numbers["table"], about.get("bounds", False)
    goals, notes = ([], []) if about["rehearsal"] or is_bound else _goals(numbers)
    costs = _costs(methods) if is_bound else []
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in table["weights"].items())
    facts = [
        ["configurations", table["rows"]],
        ["loss of the best", f"{table['best']:.4f}"],
        ["loss of the defaults", f"{table['defaults']:.4f}"],
        ["within 1 % of the best", table["within_goal"]],
        ["diverged", table["diverged"]],
        ["factor between the regrets of neighbours", f"{table['snap_error']:.2f}"],
        ["the same with equal weights", f"{table['snap_error_plain']:.2f}"],
    ]
    columns = ["", "seeds", "tokens to within 1 %", *(f"at {b}" for b in BUDGETS)]
    tables = [{"title": f"The table of {table['space']}", "columns": ["", ""], "rows": facts}]
    if costs:
        tables.append(_cost_table(methods, costs))
        goals = [] if about["rehearsal"] else _goals_of_learning(methods, costs)
    for title, is_variant, is_possible in (
        ("Samplers and schedulers", False, False),
        ("The default and variants of it", True, False),
        ("What is possible", False, True),
    ):
        some = {
            name: method
            for name, method in methods.items()
            if (method["variant"], method.get("bound", False)) == (is_variant, is_possible)
        }
        tables += [{"title": title, "columns": columns, "rows": _rows(some)}] if some else []
    name = "learning" if is_bound else "search_quality"
    return {
        "bench": name if about["study"] == "lm" else f"{name}_{about['study']}",
        "about": dict(about),
        "tables": tables,
        "goals": goals,
        "notes": [
            *notes,
            f"The table was trained by `{table['command']}` on {table['date']}, {table['device']}, "
            f"torch {table['torch']}. Weights of the parameters: {weights}.",
            f"{about['slots']} slots train equally fast, where a name says no other number.",
        ],
        "numbers": dict(numbers),
    }


def _goals(numbers: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Return the goals of the default combination, and notes on them."""
    methods = numbers["methods"]
    mine, reference = (methods[name]["reach"][1] for name in (DEFAULT, REFERENCE))
    share = mine / reference if mine and reference else None
    what = f"{DEFAULT}: tokens to within 1 %, share of those of {REFERENCE}"
    goals = [goal(what, share, most=TENTH)]
    for rival in (TOP_K, STEP_LAW):
        ours, theirs = methods[DEFAULT], methods[rival]
        compared = [b for b in ours["regret"] if theirs["regret"][b][1] is not None]
        lost = [b for b in compared if not _less(ours["mean"][b], theirs["mean"][b])]
        what = f"{DEFAULT} beside {rival} at {', '.join(compared)} complete trials"
        goals.append(goal(f"{what}: times that its mean regret is not less", len(lost), most=0))
    ours, theirs = methods[AS_IT_IS], numbers["equal_tokens"]
    notes = [
        f"{AS_IT_IS}, spends {ours['spent']:.1f} complete trials and ends at "
        f"{_spread(ours['end'])} %, {100 * ours['end_mean']:.2f} % on average; {TOP_K} with as "
        f"many tokens at {_spread(theirs['end'])} %, {100 * theirs['end_mean']:.2f} %."
    ]
    ends = [each["end"][1] for each in (theirs, ours)]
    less = None if None in ends else 100 * (ends[0] - ends[1])
    what = f"{AS_IT_IS}: % of median regret less than {TOP_K} with as many tokens"
    goals.append(goal(what, less, least=0.01))
    for (has_prior, slots), most in WANTED.items():
        tpe, *others = (
            variant(has_prior, sampler, slots, defaults)
            for defaults in ("full", "raced")
            for sampler in ("tpe", "gp")
        )
        if tpe not in methods:
            continue
        reached = methods[tpe]["reach"][1]
        goals.append(goal(f"{tpe}: complete trials to within 1 %", reached, most=most))
        reaches = {n: methods[n]["reach"][1] or math.inf for n in others if n in methods}
        best = min(reaches, key=reaches.__getitem__)
        reach = _spread(methods[best]["reach"], _tokens)
        notes.append(f"{tpe}: the best variant, {best}, is within 1 % after {reach}.")
    return goals, notes


# sources ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a search whose sources mislead costs more than one that knows nothing.

    Attributes:
        how: how the sources mislead.
        slots: number of slots.
        more: regret → complete trials more until it is reached, on average.
        error: standard error of the last.
    """

    how: str
    slots: int
    more: Mapping[float, float]
    error: Mapping[float, float]


def _costs(methods: Mapping[str, Any]) -> list[Cost]:
    """Compare the searches with misleading sources with those that know nothing."""
    costs = []
    for name in (name for name in methods if name.startswith(_MISLED)):
        how, _, slots = name.removeprefix(_MISLED).rpartition("; ")
        number = int(slots.split()[0])
        cold = methods.get(bound(COLD, number))
        if cold is None:
            continue
        more, error = {}, {}
        for level in LEVELS:
            of = methods[name]["mean_to"][str(level)], cold["mean_to"][str(level)]
            more[level] = of[0][0] - of[1][0]
            error[level] = math.hypot(of[0][1], of[1][1])
        costs.append(Cost(how, number, more, error))
    return costs


def _cost_table(methods: Mapping[str, Any], costs: Sequence[Cost]) -> dict[str, Any]:
    """Return a table with a row for what sources say, and columns for slots."""
    slots = sorted({cost.slots for cost in costs})
    rows = []
    for level in LEVELS:
        for name in (COLD, LEARNED):
            of = [methods.get(bound(name, number)) for number in slots]
            means = [_mean(each["mean_to"][str(level)]) if each else "" for each in of]
            rows.append([f"{name}, to within {100 * level:g} %", *means])
        for how in dict.fromkeys(cost.how for cost in costs):
            more = {
                c.slots: f"{c.more[level]:+.1f} ± {c.error[level]:.1f}"
                for c in costs
                if c.how == how
            }
            rows.append([f"… misled, {how}: more than {COLD}", *(more.get(n, "") for n in slots)])
    columns = ["", *(f"{number} slot{'s' if number > 1 else ''}" for number in slots)]
    title = (
        "Complete trials on average; a search that never gets there counts with its whole length"
    )
    return {"title": title, "columns": columns, "rows": rows}


def _mean(of: Sequence[float]) -> str:
    return f"{of[0]:.1f} ± {of[1]:.1f}"


def _goals_of_learning(methods: Mapping[str, Any], costs: Sequence[Cost]) -> list[Any]:
    """Return the goals of searches that learn."""
    goals = []
    for slots, most in LEARNS.items():
        name = bound(LEARNED, slots)
        if name in methods:
            reached = methods[name]["reach"][1]
            goals.append(goal(f"{name}: complete trials to within 1 %", reached, most=most))
    for cost in costs:
        more = round(max(cost.more.values()), 2)
        what = f"{bound(misled(cost.how), cost.slots)}: complete trials more than {COLD}"
        goals.append(goal(what, more, most=WORSE))
    return goals


def mean_to(reaches: Sequence[float], most: float) -> tuple[float, float]:
    """Return the mean of some tokens, at most `most` each, and its standard error."""
    limited = np.minimum(reaches, most)
    return float(limited.mean()), float(limited.std(ddof=1) / math.sqrt(len(limited)))


def _less(one: float | None, other: float | None) -> bool:
    return (math.inf if one is None else one) < (math.inf if other is None else other)


# the picture ------------------------------------------------------------------------------------


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw regret against tokens, a panel for each scheduler."""
    from matplotlib.figure import Figure

    methods = result["numbers"]["methods"]
    searches = {n: m for n, m in methods.items() if " · " in n and not m["variant"]}
    panels = list(dict.fromkeys(name.split(" · ")[1] for name in searches))
    figure = Figure(figsize=(3.4 * max(1, len(panels)), 4))
    axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=False):
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
    figure.legend(
        [lines[n] for n in names],
        names,
        loc="upper center",
        ncol=len(names),
        bbox_to_anchor=(0.5, 0),
    )
    save_figure(figure, path, 90)


def _percent(values: Sequence[float | None]) -> list[float]:
    """Return percents of at least 0.1, for a log scale; None, infinity, is not drawn."""
    return [math.nan if v is None else max(100 * v, 0.1) for v in values]


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
