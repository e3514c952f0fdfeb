"""Confirmed comparison: the best configurations, retrained with fresh seeds."""

from __future__ import annotations

from math import isfinite

import plotly.graph_objects as go

from tuner.conductor.confirmation import Confirmation
from tuner.conductor.verdict import ArmComparison, p_text
from tuner.report.palette import FAINT, FINISHED, INK, STOPPED, WINNER
from tuner.report.picture import NAMES, Picture, new_figure, safe
from tuner.report.series import ReportData
from tuner.texts.formatting import counted


def pictures(series: ReportData) -> list[Picture]:
    """Draw, for each configuration, its seeds, their mean with interval, and its selected value."""
    confirmation = series.result.confirmation
    if confirmation is None or not any(entry.count for entry in confirmation.ranked):
        return []
    selected = {trial.number: trial.objective(series.metric) for trial in series.trials}
    verdict = series.result.verdict
    names = {entry.number: f"trial {entry.number}" for entry in confirmation.ranked}
    for arm in verdict.arms if verdict else ():
        names |= {e.number: f"{arm.arm.text}, trial {e.number}" for e in arm.confirmed}
    caption = _caption(confirmation, series.metric, of_arms=verdict is not None)
    figure = _figure(confirmation, selected, series.metric, names)
    retrained = Picture("confirmed", "Retrained configurations", caption, figure)
    return [*_arms(verdict, series.metric), retrained]


def _arms(verdict: ArmComparison | None, metric: str) -> list[Picture]:
    """Draw the gain of the best arm over each other arm, with its interval."""
    gains = [(each, each.gain) for each in verdict.differences if each.gain] if verdict else []
    if verdict is None or not gains:
        return []
    names = [each.arm.text for each, _ in gains]
    figure = new_figure(height=86 + 44 * len(gains))
    is_told = [each.verdict != "cannot be told apart" for each, _ in gains]
    for told, colour, name in ((True, WINNER, "told apart"), (False, STOPPED, "not told apart")):
        some = [each for each, is_so in zip(gains, is_told, strict=True) if is_so is told]
        if not some:
            continue
        figure.add_scatter(
            x=[gain.mean for _, gain in some], y=[each.arm.text for each, _ in some],
            mode="markers", name=name,
            customdata=[[gain.low, gain.high, p_text(each.p or 0.0)] for each, gain in some],
            marker={"symbol": "diamond" if told else "circle-open", "size": 12, "color": colour},
            error_x={"array": [gain.half for _, gain in some], "color": colour, "thickness": 2.5,
                     "width": 7},
            hovertemplate="%{y}: %{x:.2f} % (%{customdata[0]:.2f} to %{customdata[1]:.2f} %, "
                          "%{customdata[2]})<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5], categoryorder="array", categoryarray=names,
        tickfont={"color": INK, "size": 13}, **NAMES,
    )  # fmt: skip
    best = verdict.arms[0].arm.text
    figure.update_xaxes(title_text=safe(f"gain of {best} in {metric}, %"))
    caption = (
        f"By how much {best} is better than each other arm, in percent of the mean of the other, "
        f"over the same fresh seeds. Whiskers are 95 % intervals"
        + (f", corrected for all {verdict.num_pairs} pairs" if verdict.num_pairs > 1 else "")
        + "; 0 is no difference."
    )
    return [Picture("arms", f"{best} against the other arms", caption, figure)]


def _caption(confirmation: Confirmation, metric: str, *, of_arms: bool) -> str:
    """Return the meaning of points and whiskers."""
    ranked = confirmation.ranked
    seeds = max(len(entry.values) for entry in ranked)
    with_seeds = f"retrained with the same {counted(seeds, 'fresh seed')}"
    best = "best configurations of each arm" if of_arms else f"best {len(ranked)} configurations"
    text = f"The {best}, each {with_seeds}; the winner is on top."
    if len(ranked) == 1:
        text = f"The best configuration, {with_seeds}."
    chosen = f", valid also for the best of {len(ranked)}" if len(ranked) > 1 else ""
    text += (
        f" Whiskers are 95 % intervals of the mean {metric}{chosen}; the vertical mark is the "
        f"value in the search."
    )
    if any(entry.count == 1 for entry in ranked):
        text += " A single value has no interval."
    return text


def _figure(
    confirmation: Confirmation, selected: dict[int, float], metric: str, names: dict[int, str]
) -> go.Figure:
    """Draw the comparison; `selected` is the value of each trial in the search, by number."""
    figure = new_figure(height=86 + 54 * len(confirmation.ranked))
    winner = confirmation.ranked[0].number
    for is_winner, colour in ((True, WINNER), (False, FINISHED)):
        means = [e for e in confirmation.ranked if e.count and (e.number == winner) is is_winner]
        if not means:
            continue
        halves = [(e.high - e.low) / 2 if e.count > 1 else 0.0 for e in means]
        figure.add_scatter(
            x=[e.mean for e in means], y=[names[e.number] for e in means], mode="markers",
            name="mean and 95 % interval" + (" of the winner" if is_winner else ""),
            customdata=halves, marker={"symbol": "diamond", "size": 12, "color": colour},
            error_x={"array": halves, "color": colour, "thickness": 2.5, "width": 7},
            hovertemplate="%{y}: %{x:.4f} ± %{customdata:.4f}<extra></extra>",
        )  # fmt: skip
    seeds = [
        (value, names[entry.number])
        for entry in confirmation.ranked
        for value in entry.values if value is not None and isfinite(value)
    ]  # fmt: skip
    figure.add_scatter(
        x=[value for value, _ in seeds], y=[name for _, name in seeds], mode="markers",
        name="one fresh seed",
        marker={"symbol": "circle-open", "size": 9, "color": FAINT, "line": {"width": 1.5}},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    marks = [(v, names[n]) for n, v in selected.items() if n in names and isfinite(v)]
    figure.add_scatter(
        x=[v for v, _ in marks], y=[name for _, name in marks], mode="markers",
        name="in the search",
        marker={"symbol": "line-ns-open", "size": 16, "color": INK, "line": {"width": 2}},
        hovertemplate="%{y} in the search: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5], categoryorder="array", categoryarray=list(names.values()),
        tickfont={"color": INK, "size": 13}, **NAMES,
    )  # fmt: skip
    figure.update_xaxes(title_text=safe(metric))
    return figure
