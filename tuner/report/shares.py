"""Shares of the objective that each parameter explains, by two methods."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.report.series import ReportData
from tuner.results.advice import comparable
from tuner.results.importance import (
    Importance,
    Method,
    fewest_trials,
    importance,
    undervalues_choices,
)
from tuner.results.range_edit import condition
from tuner.space.parameter import symbol

METHODS: dict[Method, str] = {"fanova": "fANOVA", "ped-anova": "PED-ANOVA"}


@dataclass(frozen=True)
class Bar:
    """Shares of one parameter.

    Attributes:
        title: symbol of the parameter, with its condition if only some trials have it.
        shares: by method: share of the main effects, and its standard deviation over resamples of
            the trials, both from 0 to 1.
    """

    title: str
    shares: dict[Method, tuple[float, float]]


@dataclass(frozen=True)
class Shares:
    """Shares of all parameters, the most important first.

    Attributes:
        bars: shares of the parameters; empty if they cannot be computed.
        trials: number of trials compared.
        budget: training tokens, or FLOPs, at which the trials are compared, as text.
        reason: sentence that says why there are no bars; None if there are bars.
        is_clear: True if the largest share by fANOVA is clearly larger than its uncertainty.
        undervalues_choices: True if fANOVA gives choices too small a share, for lack of trials.
    """

    bars: tuple[Bar, ...]
    trials: int
    budget: str
    reason: str | None
    is_clear: bool
    undervalues_choices: bool = False


def shares_of(series: ReportData) -> Shares:
    """Compare the trials without a parent, at a budget that half of them were trained for.

    Parameters that only some trials have are compared among those trials, after the others.
    """
    space = series.result.space
    points, budget = comparable(space, series.originals)
    importances: dict[Method, list[Importance]] = {m: importance(space, points, m) for m in METHODS}
    first = importances["fanova"]
    if not first:
        return Shares((), len(points), budget, _reason(series, len(points), budget), False)
    bars = tuple(bar for group in first for bar in _bars(group, importances["ped-anova"]))
    is_unfair = undervalues_choices(space.searched, first[0].count)
    return Shares(bars, first[0].count, budget, None, first[0].stands_out, is_unfair)


def _bars(group: Importance, others: list[Importance]) -> list[Bar]:
    """Return the bars that belong to one group of trials."""
    other = next((o for o in others if o.labels == group.labels), None)
    ped_anova = {s.parameter.label: (s.mean, s.deviation) for s in other.shares} if other else {}
    bars = []
    for share in group.shares:
        p = share.parameter
        if p.label not in group.labels:
            continue
        title = f"{symbol(p.name)} / {symbol(p.fraction_of)}" if p.fraction_of else symbol(p.name)
        title = f"{title} (if {condition(p.when)})" if p.when else title
        shares: dict[Method, tuple[float, float]] = {"fanova": (share.mean, share.deviation)}
        if p.label in ped_anova:
            shares["ped-anova"] = ped_anova[p.label]
        bars.append(Bar(title, shares))
    return bars


def _reason(series: ReportData, trials: int, budget: str) -> str:
    searched = series.result.space.searched
    if not searched:
        return "No parameter was searched, so there are no importances."
    fewest = fewest_trials(max((len(trial.draw) for trial in series.trials), default=0))
    if trials < fewest:
        return (
            f"Too few trials to compute importances: {trials} of the trials can be compared at "
            f"{budget}, and {len(searched)} parameters need at least {fewest}."
        )
    return "All comparable trials have the same value, so there are no importances."
