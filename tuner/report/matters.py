"""What matters: importances, and a slice for each parameter, drawn as `figures` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from tuner.report.axes import Axis, Mark, Slice, SlicePoint
from tuner.report.figures import NAMES, figure, safe, value_axis, value_text
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


def importances(found: Shares) -> go.Figure:
    """Two bars for each parameter, with one standard deviation."""
    drawn = figure(height=80 + 46 * len(found.bars), barmode="group", bargap=0.3)
    titles = [safe(bar.title) for bar in found.bars]
    for (method, name), colour in zip(METHODS.items(), (FINISHED, STOPPED), strict=True):
        shares = [bar.shares.get(method) for bar in found.bars]
        if any(shares):
            means = [None if s is None else 100 * s[0] for s in shares]
            deviations = [None if s is None else 100 * s[1] for s in shares]
            drawn.add_bar(
                y=titles, x=means, name=name, orientation="h", marker={"color": colour},
                customdata=deviations,
                error_x={"array": deviations, "color": INK, "thickness": 1.5, "width": 4},
                hovertemplate="%{y}: %{x:.0f} ± %{customdata:.0f} % by " + name + "<extra></extra>",
            )  # fmt: skip
    names = {"tickfont": {"color": INK, "size": 13}, **NAMES}
    drawn.update_yaxes(autorange="reversed", showgrid=False, **names)
    ends = [100 * (mean + sd) for bar in found.bars for mean, sd in bar.shares.values()]
    drawn.update_xaxes(title_text="share explained, %", range=[0, min(1.04 * max(ends), 100)])
    return drawn


def slice_of(found: Slice, series: ReportData, winner: int | None) -> go.Figure:
    """One parameter: trials as points, what lies outside of its range in grey."""
    axis = found.axis
    drawn = figure(height=270, margin={"l": 56, "r": 10, "t": 10, "b": 50})
    known = [p.value for p in found.points if p.value is not None]
    scale = value_axis(known, series.metric)
    drawn.update_yaxes(scale)
    _add_range(drawn, axis)
    # diverged trials have no value: they stand at the bad end
    span = scale.get("range") or [0.0, 1.0]
    bad = span[1] if series.sign > 0 else span[0]
    bad = 10**bad if scale.get("type") == "log" else bad
    for mark, points in found.marked(winner).items():
        _add_points(drawn, points, bad, _LOOKS[mark])
    return drawn


def _add_points(
    drawn: go.Figure, points: Sequence[SlicePoint], bad: float, marker: dict[str, Any]
) -> None:
    if not points:
        return
    told = ["diverged" if p.value is None else value_text(p.value) for p in points]
    drawn.add_scatter(
        x=[p.x for p in points],
        y=[bad if p.value is None else p.value for p in points],
        mode="markers", marker=marker, cliponaxis=False,
        customdata=[[p.number, safe(p.text), t] for p, t in zip(points, told, strict=True)],
        hovertemplate="trial %{customdata[0]}: %{customdata[2]}"
        "<br>at %{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _add_range(drawn: go.Figure, axis: Axis) -> None:
    """The scale of a parameter, its ends and its ticks."""
    if axis.values:
        ends = [-0.5, len(axis.values) - 0.5]
        drawn.update_xaxes(
            tickvals=list(range(len(axis.values))), ticktext=[safe(v) for v in axis.values],
            range=ends,
        )  # fmt: skip
    else:
        low, high = (log10(axis.low), log10(axis.high)) if axis.is_log else (axis.low, axis.high)
        margin = 0.07 * (high - low) or 0.5
        texts = [safe(text) for _, text in axis.ticks]
        values = [low + place * (high - low) for place, _ in axis.ticks]
        drawn.update_xaxes(
            type="log" if axis.is_log else "linear", range=[low - margin, high + margin],
            tickvals=[10**v for v in values] if axis.is_log else values, ticktext=texts,
        )  # fmt: skip
        for inner, outer in ((axis.low, low - margin), (axis.high, high + margin)):
            beyond = 10**outer if axis.is_log else outer
            drawn.add_vrect(x0=inner, x1=beyond, fillcolor=OUTSIDE, line_width=0, layer="below")
            drawn.add_vline(x=inner, line={"color": FAINT, "width": 1}, layer="below")
    drawn.update_xaxes(title_text=safe(axis.full_title), showgrid=False)
