"""What each parameter explains, by two methods, for the trials of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.report.series import ReportData
from tuner.results.advice import comparable
from tuner.results.importance import Importance, Method, fewest_trials, importance
from tuner.results.range_edit import condition
from tuner.space.parameter import symbol

METHODS: dict[Method, str] = {"fanova": "fANOVA", "ped-anova": "PED-ANOVA"}


@dataclass(frozen=True)
class Bar:
    """One parameter.

    Attributes:
        title: of the parameter; with its condition, if only some trials have it.
        shares: method → share of the main effects and its standard deviation over resamples of the
            trials, both from 0 to 1.
    """

    title: str
    shares: dict[Method, tuple[float, float]]


@dataclass(frozen=True)
class Shares:
    """All parameters, the most important first.

    Attributes:
        bars: empty if nothing can be said.
        trials: that were looked at.
        tokens: training tokens at which they were compared.
        reason: why nothing can be said, as a sentence; None if there are bars.
        is_clear: whether fANOVA's first parameter stands out of its uncertainty.
    """

    bars: tuple[Bar, ...]
    trials: int
    tokens: int
    reason: str | None
    is_clear: bool


def shares_of(series: ReportData) -> Shares:
    """Compare the trials that began from nothing, at a budget that half of them were trained for.

    Parameters that only some trials have are judged among those, after the others.
    """
    space = series.result.space
    rows = [row for row in series.trials if row.parent is None and not row.is_duplicate]
    points, tokens = comparable(space, rows)
    found: dict[Method, list[Importance]] = {m: importance(space, points, m) for m in METHODS}
    first = found["fanova"]
    if not first:
        return Shares((), len(points), tokens, _reason(series, len(points), tokens), False)
    bars = tuple(
        bar for group in first for bar in _bars(group, found["ped-anova"])
    )  # each group of parameters is told once
    return Shares(bars, first[0].count, tokens, None, first[0].stands_out)


def _bars(group: Importance, others: list[Importance]) -> list[Bar]:
    """Those that are told of one group of trials."""
    other = next((o for o in others if o.labels == group.labels), None)
    known = {s.parameter.label: (s.mean, s.deviation) for s in other.shares} if other else {}
    bars = []
    for share in group.shares:
        p = share.parameter
        if p.label not in group.labels:
            continue
        title = f"{symbol(p.name)} / {symbol(p.fraction_of)}" if p.fraction_of else symbol(p.name)
        title = f"{title} (if {condition(p.when)})" if p.when else title
        shares: dict[Method, tuple[float, float]] = {"fanova": (share.mean, share.deviation)}
        if p.label in known:
            shares["ped-anova"] = known[p.label]
        bars.append(Bar(title, shares))
    return bars


def _reason(series: ReportData, trials: int, tokens: int) -> str:
    searched = series.result.space.searched
    if not searched:
        return "Nothing was searched, so nothing can be more important than anything else."
    fewest = fewest_trials(max((len(row.draw) for row in series.trials), default=0))
    if trials < fewest:
        return (
            f"Too few trials to say which parameters matter: {trials} of them can be compared at "
            f"{tokens:,} tokens, and at least {fewest} are needed for {len(searched)} parameters."
        )
    return "All trials that can be compared have the same value, so no parameter explains anything."
