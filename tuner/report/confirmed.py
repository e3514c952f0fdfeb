"""Confirmed comparison: the best configurations, retrained with fresh seeds."""

from __future__ import annotations

from math import isfinite

import plotly.graph_objects as go

from tuner.conductor.confirmation import Confirmation
from tuner.report.palette import FAINT, FINISHED, INK, WINNER
from tuner.report.picture import NAMES, Picture, new_figure, safe
from tuner.report.series import ReportData
from tuner.texts.formatting import counted


def pictures(series: ReportData) -> list[Picture]:
    """Draw, for each configuration, its seeds, their mean with interval, and its selected value."""
    confirmation = series.result.confirmation
    if confirmation is None or not any(entry.count for entry in confirmation.ranked):
        return []
    selected = {trial.number: trial.objective(series.metric) for trial in series.trials}
    caption = _caption(confirmation, series.metric)
    figure = _figure(confirmation, selected, series.metric)
    return [Picture("confirmed", "Retrained configurations", caption, figure)]


def _caption(confirmation: Confirmation, metric: str) -> str:
    """Return the meaning of points and whiskers."""
    ranked = confirmation.ranked
    seeds = max(len(entry.values) for entry in ranked)
    with_seeds = f"retrained with the same {counted(seeds, 'fresh seed')}"
    text = f"The best {len(ranked)} configurations, each {with_seeds}; the winner is on top."
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


def _figure(confirmation: Confirmation, selected: dict[int, float], metric: str) -> go.Figure:
    """Draw the comparison; `selected` is the value of each trial in the search, by number."""
    figure = new_figure(height=86 + 54 * len(confirmation.ranked))
    names = {entry.number: f"trial {entry.number}" for entry in confirmation.ranked}
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
