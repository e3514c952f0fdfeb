"""Importance of parameters: the shares of the objective that each explains, by two methods."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from tuner.report.axes import axis_of
from tuner.report.palette import FINISHED, INK, STOPPED
from tuner.report.picture import NAMES, Picture, new_figure, safe
from tuner.report.series import ReportData
from tuner.results.advice import comparable
from tuner.results.importance import (
    Importance,
    Method,
    fewest_trials,
    importance,
    undervalues_choices,
)

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
        shares: dict[Method, tuple[float, float]] = {"fanova": (share.mean, share.deviation)}
        if p.label in ped_anova:
            shares["ped-anova"] = ped_anova[p.label]
        bars.append(Bar(axis_of(p).full_title, shares))
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


def pictures(shares: Shares, metric: str) -> list[Picture]:
    """Draw two bars for each parameter, with one standard deviation."""
    if not shares.bars:
        return []
    caption = _caption(shares, metric)
    return [Picture("importance", "Importance of parameters", caption, _figure(shares))]


def _caption(shares: Shares, metric: str) -> str:
    """Return the most important parameters, and their uncertainty."""
    leads: dict[str, list[str]] = {}
    for method, name in METHODS.items():
        values = [(*bar.shares[method], bar.title) for bar in shares.bars if method in bar.shares]
        if values:
            mean, deviation, title = max(values)
            share = f"{100 * mean:.0f} ± {100 * deviation:.0f} % by {name}"
            leads.setdefault(title, []).append(share)
    parts = [f"{title} ({', '.join(texts)})" for title, texts in leads.items()]
    text = f"Most of {metric} is explained by {' or '.join(parts)}"
    if not shares.is_clear:
        text += ", but no share is clearly larger than its uncertainty"
    unfair = (
        " With so few trials fANOVA gives choices too little: of 24 trials, about 25 % for a true "
        "50 %."
    )
    return (
        f"{text}. {shares.trials} trials are compared at {shares.budget}. fANOVA "
        f"explains the variance over all trials, PED-ANOVA the difference between the best quarter "
        f"and the rest; whiskers are one standard deviation over eight resamples of the trials "
        f"(bootstrap).{unfair if shares.undervalues_choices else ''}"
    )


def _figure(shares: Shares) -> go.Figure:
    """Draw two bars for each parameter, with one standard deviation."""
    figure = new_figure(height=80 + 46 * len(shares.bars), barmode="group", bargap=0.3)
    titles = [safe(bar.title) for bar in shares.bars]
    for (method, name), colour in zip(METHODS.items(), (FINISHED, STOPPED), strict=True):
        values = [bar.shares.get(method) for bar in shares.bars]
        if any(values):
            means = [None if s is None else 100 * s[0] for s in values]
            deviations = [None if s is None else 100 * s[1] for s in values]
            figure.add_bar(
                y=titles, x=means, name=name, orientation="h", marker={"color": colour},
                customdata=deviations,
                error_x={"array": deviations, "color": INK, "thickness": 1.5, "width": 4},
                hovertemplate="%{y}: %{x:.0f} ± %{customdata:.0f} % by " + name + "<extra></extra>",
            )  # fmt: skip
    names = {"tickfont": {"color": INK, "size": 13}, **NAMES}
    figure.update_yaxes(autorange="reversed", showgrid=False, **names)
    ends = [100 * (mean + sd) for bar in shares.bars for mean, sd in bar.shares.values()]
    figure.update_xaxes(title_text="share explained, %", range=[0, min(1.04 * max(ends), 100)])
    return figure
