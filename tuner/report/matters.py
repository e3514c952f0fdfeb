"""Plots of parameters for the page: importances, and a slice for each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from tuner.report.axes import Axis, Mark, Slice, SlicePoint
from tuner.report.figures import NAMES, new_figure, safe, value_axis, value_text
from tuner.report.palette import DIVERGED, FAINT, FINISHED, INK, OUTSIDE, STOPPED, WINNER
from tuner.report.series import ReportData
from tuner.report.shares import METHODS, Shares

_LOOKS: Mapping[Mark, dict[str, Any]] = {
    Mark.STOPPED: {"symbol": "circle-open", "size": 7, "color": STOPPED},
    Mark.UNFINISHED: {"symbol": "circle-open-dot", "size": 7, "color": STOPPED},
    Mark.FINISHED: {"symbol": "circle", "size": 8, "color": FINISHED},
    Mark.DIVERGED: {"symbol": "x", "size": 9, "color": DIVERGED},
    Mark.DEFAULTS: {"symbol": "square", "size": 9, "color": INK},
    Mark.WINNER: {"symbol": "star", "size": 15, "color": WINNER},
}


def importances(parameters: Shares) -> go.Figure:
    """Draw two bars for each parameter, with one standard deviation."""
    figure = new_figure(height=80 + 46 * len(parameters.bars), barmode="group", bargap=0.3)
    titles = [safe(bar.title) for bar in parameters.bars]
    for (method, name), colour in zip(METHODS.items(), (FINISHED, STOPPED), strict=True):
        shares = [bar.shares.get(method) for bar in parameters.bars]
        if any(shares):
            means = [None if s is None else 100 * s[0] for s in shares]
            deviations = [None if s is None else 100 * s[1] for s in shares]
            figure.add_bar(
                y=titles, x=means, name=name, orientation="h", marker={"color": colour},
                customdata=deviations,
                error_x={"array": deviations, "color": INK, "thickness": 1.5, "width": 4},
                hovertemplate="%{y}: %{x:.0f} ± %{customdata:.0f} % by " + name + "<extra></extra>",
            )  # fmt: skip
    names = {"tickfont": {"color": INK, "size": 13}, **NAMES}
    figure.update_yaxes(autorange="reversed", showgrid=False, **names)
    ends = [100 * (mean + sd) for bar in parameters.bars for mean, sd in bar.shares.values()]
    figure.update_xaxes(title_text="share explained, %", range=[0, min(1.04 * max(ends), 100)])
    return figure


def slice_of(piece: Slice, series: ReportData, winner: int | None) -> go.Figure:
    """Draw the trials along one parameter; areas outside of its range are grey."""
    axis = piece.axis
    figure = new_figure(height=270, margin={"l": 56, "r": 10, "t": 10, "b": 50})
    values = [p.value for p in piece.points if p.value is not None]
    scale = value_axis(values, series.metric)
    figure.update_yaxes(scale)
    _add_range(figure, axis)
    # diverged trials have no value: they are drawn at the bad end
    span = scale.get("range") or [0.0, 1.0]
    bad = span[1] if series.sign > 0 else span[0]
    bad = 10**bad if scale.get("type") == "log" else bad
    for mark, points in piece.marked(winner).items():
        _add_points(figure, points, bad, _LOOKS[mark])
    return figure


def _add_points(
    figure: go.Figure, points: Sequence[SlicePoint], bad: float, marker: dict[str, Any]
) -> None:
    if not points:
        return
    texts = ["diverged" if p.value is None else value_text(p.value) for p in points]
    figure.add_scatter(
        x=[p.x for p in points],
        y=[bad if p.value is None else p.value for p in points],
        mode="markers", marker=marker, cliponaxis=False,
        customdata=[[p.number, safe(p.text), t] for p, t in zip(points, texts, strict=True)],
        hovertemplate="trial %{customdata[0]}: %{customdata[2]}"
        "<br>at %{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _add_range(figure: go.Figure, axis: Axis) -> None:
    """Set the scale of a parameter, its ends and its ticks."""
    if axis.values:
        ends = [-0.5, len(axis.values) - 0.5]
        figure.update_xaxes(
            tickvals=list(range(len(axis.values))), ticktext=[safe(v) for v in axis.values],
            range=ends,
        )  # fmt: skip
    else:
        low, high = (log10(axis.low), log10(axis.high)) if axis.is_log else (axis.low, axis.high)
        margin = 0.07 * (high - low) or 0.5
        texts = [safe(text) for _, text in axis.ticks]
        values = [low + place * (high - low) for place, _ in axis.ticks]
        figure.update_xaxes(
            type="log" if axis.is_log else "linear", range=[low - margin, high + margin],
            tickvals=[10**v for v in values] if axis.is_log else values, ticktext=texts,
        )  # fmt: skip
        for inner, outer in ((axis.low, low - margin), (axis.high, high + margin)):
            beyond = 10**outer if axis.is_log else outer
            figure.add_vrect(x0=inner, x1=beyond, fillcolor=OUTSIDE, line_width=0, layer="below")
            figure.add_vline(x=inner, line={"color": FAINT, "width": 1}, layer="below")
    figure.update_xaxes(title_text=safe(axis.full_title), showgrid=False)
