"""Slices: the trials along one parameter at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from tuner.formatting import listed
from tuner.report.axes import Axis, Mark, Slice, SlicePoint, slices_of
from tuner.report.palette import DIVERGED, FAINT, FINISHED, INK, OUTSIDE, STOPPED, WINNER
from tuner.report.picture import Picture, new_figure, safe, value_axis, value_text
from tuner.report.series import ReportData, better_direction
from tuner.results.range_edit import unit
from tuner.space.parameter import Range

_EDGE = 0.1  # of a range

_LOOKS: Mapping[Mark, dict[str, Any]] = {
    Mark.STOPPED: {"symbol": "circle-open", "size": 7, "color": STOPPED},
    Mark.UNFINISHED: {"symbol": "circle-open-dot", "size": 7, "color": STOPPED},
    Mark.FINISHED: {"symbol": "circle", "size": 8, "color": FINISHED},
    Mark.DIVERGED: {"symbol": "x", "size": 9, "color": DIVERGED},
    Mark.DEFAULTS: {"symbol": "square", "size": 9, "color": INK},
    Mark.WINNER: {"symbol": "star", "size": 15, "color": WINNER},
}


def pictures(series: ReportData, winner: int | None) -> list[Picture]:
    """Draw a slice for each parameter."""
    return [
        Picture(
            f"slice-{i}", title := s.axis.full_title,
            f"{series.metric} of each trial against {title}", _figure(s, series, winner),
        )
        for i, s in enumerate(slices_of(series)) if s.points
    ]  # fmt: skip


def caption(series: ReportData, winner: int | None) -> str:
    """Return the caption of all slices: the ranges in which the winner is near an end."""
    text = (
        f"{series.metric} at the last report of each trial, {better_direction(series.metric)}, "
        f"along one parameter at a time; grey areas are outside the searched range."
    )
    near = [end for s in slices_of(series) for end in _near(s, series, winner)]
    if winner is None:
        return text
    if not near:
        return f"{text} The winner is not near an end of a range."
    return f"{text} The winner is near {listed(near, 'and')}."


def _near(piece: Slice, series: ReportData, winner: int | None) -> list[str]:
    """Return `the lower end of α_max` if the winner is in the outer tenth of a range."""
    p = next(p for p in series.result.space.searched if p.label == piece.axis.label)
    point = next((point for point in piece.points if point.number == winner), None)
    if point is None or not isinstance(p.distribution, Range):
        return []
    place = unit(p.distribution, point.x)
    if _EDGE < place < 1 - _EDGE:
        return []
    end = "lower" if place <= _EDGE else "upper"
    return [f"the {end} end of {piece.axis.title}"]


def _figure(piece: Slice, series: ReportData, winner: int | None) -> go.Figure:
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
        if points:
            _add_points(figure, points, bad, name=str(mark), marker=_LOOKS[mark])
    return figure


def _add_points(figure: go.Figure, points: Sequence[SlicePoint], bad: float, **style: Any) -> None:
    texts = ["diverged" if p.value is None else value_text(p.value) for p in points]
    figure.add_scatter(
        x=[p.x for p in points],
        y=[bad if p.value is None else p.value for p in points],
        mode="markers", cliponaxis=False, **style,
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
