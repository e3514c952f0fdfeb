"""Slices: the trials along one parameter at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log10, sqrt
from typing import Any

import plotly.graph_objects as go

from tuner.conductor.trial import Trial
from tuner.report.axes import Axis, axis_of, text_of, values_of
from tuner.report.palette import DIVERGED, FAINT, FINISHED, INK, OUTSIDE, STOPPED, WINNER
from tuner.report.picture import Picture, new_figure, safe, value_axis, value_text
from tuner.report.series import Ending, ReportData, better_direction, ending
from tuner.results.range_edit import unit
from tuner.space.parameter import Choice, Parameter, Range
from tuner.texts.formatting import listed

_EDGE = 0.1  # of a range

# By mark of a trial, the most important drawn last.
_LOOKS: Mapping[str, dict[str, Any]] = {
    Ending.STOPPED: {"symbol": "circle-open", "size": 7, "color": STOPPED},
    Ending.OTHER: {"symbol": "circle-open-dot", "size": 7, "color": STOPPED},
    Ending.FINISHED: {"symbol": "circle", "size": 8, "color": FINISHED},
    Ending.DIVERGED: {"symbol": "x", "size": 9, "color": DIVERGED},
    "defaults": {"symbol": "square", "size": 9, "color": INK},
    "winner": {"symbol": "star", "size": 15, "color": WINNER},
}
_GOLDEN = (sqrt(5) - 1) / 2


@dataclass(frozen=True)
class SlicePoint:
    """One trial on a slice.

    Attributes:
        number: number of the trial.
        x: drawn value; for a choice, the index of the value, with an offset so that trials do not
            hide each other.
        value: objective at the last report; None if the trial diverged.
        text: drawn value as text.
        mark: defaults, winner, or how the trial ended.
    """

    number: int
    x: float
    value: float | None
    text: str
    mark: str


def points_of(series: ReportData, p: Parameter, winner: int | None) -> list[SlicePoint]:
    """Return the trials that have a parameter and either a value or diverged, by number."""
    points = []
    for trial in series.trials:
        value = trial.objective(series.metric)
        if p.label in trial.draw and (isfinite(value) or ending(trial) is Ending.DIVERGED):
            mark = str(ending(trial))
            if isfinite(value) and trial.number in (winner, series.defaults_number):
                mark = "winner" if trial.number == winner else "defaults"
            points.append(
                SlicePoint(
                    trial.number, _x(p, trial), value if isfinite(value) else None,
                    text_of(trial.draw[p.label]), mark,
                )
            )  # fmt: skip
    return points


def _x(p: Parameter, trial: Trial) -> float:
    drawn = trial.draw[p.label]
    if not isinstance(p.distribution, Choice):
        return float(drawn)
    values = values_of(p.distribution)
    # a value that an edit of the search removed is left of the others
    index = float(values.index(drawn)) if drawn in values else -1.0
    return index + 0.36 * (trial.number * _GOLDEN % 1 - 0.5)


def pictures(series: ReportData, winner: int | None) -> list[Picture]:
    """Draw a slice for each parameter."""
    drawn = []
    for i, p in enumerate(series.result.space.searched):
        axis, points = axis_of(p), points_of(series, p, winner)
        if points:
            caption = f"{series.metric} of each trial against {axis.full_title}"
            figure = _figure(axis, points, series)
            drawn.append(Picture(f"slice-{i}", axis.full_title, caption, figure))
    return drawn


def caption(series: ReportData, winner: int | None) -> str:
    """Return the caption of all slices: the ranges in which the winner is near an end."""
    text = (
        f"{series.metric} at the last report of each trial, {better_direction(series.metric)}, "
        f"along one parameter at a time; grey areas are outside the searched range."
    )
    if winner is None:
        return text
    near = [end for p in series.result.space.searched if (end := _near(p, series.result.best))]
    if not near:
        return f"{text} The winner is not near an end of a range."
    return f"{text} The winner is near {listed(near, 'and')}."


def _near(p: Parameter, best: Trial) -> str:
    """Return `the lower end of α_max` if a trial is in the outer tenth of a range, else nothing."""
    if not isinstance(p.distribution, Range) or p.label not in best.draw:
        return ""
    place = unit(p.distribution, float(best.draw[p.label]))
    if _EDGE < place < 1 - _EDGE:
        return ""
    return f"the {'lower' if place <= _EDGE else 'upper'} end of {axis_of(p).title}"


def _figure(axis: Axis, points: Sequence[SlicePoint], series: ReportData) -> go.Figure:
    """Draw the trials along one parameter; areas outside of its range are grey."""
    figure = new_figure(height=270, margin={"l": 56, "r": 10, "t": 10, "b": 50})
    scale = value_axis([p.value for p in points if p.value is not None], series.metric)
    figure.update_yaxes(scale)
    _add_range(figure, axis)
    # diverged trials have no value: they are drawn at the bad end
    span = scale.get("range") or [0.0, 1.0]
    bad = span[1] if series.sign > 0 else span[0]
    bad = 10**bad if scale.get("type") == "log" else bad
    for mark, look in _LOOKS.items():
        chosen = [point for point in points if point.mark == mark]
        if chosen:
            _add_points(figure, chosen, bad, name=str(mark), marker=look)
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
