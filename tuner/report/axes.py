"""Searched parameters as axes: ticks, and the place of each trial on each axis.

A range maps to places from 0 to 1, by the logarithm if it is log-uniform. The values of a choice
have equal distances; numbers are in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from tuner.conductor.trial import Trial
from tuner.formatting import number, written
from tuner.report.series import Ending, ReportData, ending
from tuner.results.range_edit import condition, from_unit, numbers, unit
from tuner.space.parameter import Choice, Parameter, Range, Value, symbol

_NEAR = 0.16  # of an axis: the label of a tick closer to an end would overlap the end's label
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Axis:
    """Axis of one searched parameter.

    Attributes:
        label: name of the parameter in draws.
        title: `α_max`, or `α_min / α_max` for a fraction.
        when: condition of the parameter; empty if it is always drawn.
        ticks: place and text of each tick, ascending.
        low: lower end; 0 for a choice.
        high: upper end; for a choice, the index of its last value.
        is_log: True for a log-uniform range.
        values: values of a choice as texts, in order; empty for a range.
    """

    label: str
    title: str
    when: str
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    is_log: bool
    values: tuple[str, ...] = ()

    @property
    def full_title(self) -> str:
        """Title with the condition."""
        return f"{self.title} (if {self.when})" if self.when else self.title


@dataclass(frozen=True)
class SlicePoint:
    """One trial on a slice.

    Attributes:
        number: number of the trial.
        x: drawn value; for a choice, the index of the value, with an offset so that trials do not
            hide each other.
        value: objective at the last report; None if the trial diverged or has no report.
        text: drawn value as text.
        ending: how the trial ended.
    """

    number: int
    x: float
    value: float | None
    text: str
    ending: Ending


class Mark(StrEnum):
    """Marker of a trial on a slice, the most important last."""

    STOPPED = "stopped"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    DIVERGED = "diverged"
    DEFAULTS = "defaults"
    WINNER = "winner"


@dataclass(frozen=True)
class Slice:
    """Trials along one parameter.

    Attributes:
        axis: the parameter.
        points: the trials that have it.
        defaults: number of the trial with the defaults; None if there is none.
    """

    axis: Axis
    points: tuple[SlicePoint, ...]
    defaults: int | None = 0

    def marked(self, winner: int | None) -> dict[Mark, list[SlicePoint]]:
        """Return the points by marker; of points without a value, only those that diverged."""
        by_mark: dict[Mark, list[SlicePoint]] = {mark: [] for mark in Mark}
        for point in self.points:
            if point.value is None and point.ending is not Ending.DIVERGED:
                continue
            mark = Mark(point.ending)
            if point.value is not None and point.number in (self.defaults, winner):
                mark = Mark.WINNER if point.number == winner else Mark.DEFAULTS
            by_mark[mark].append(point)
        return by_mark


@dataclass(frozen=True)
class Line:
    """One trial across all axes.

    Attributes:
        number: number of the trial.
        places: place from 0 to 1 on each axis; None if the trial does not have the parameter.
        texts: drawn value on each axis as text; "" if the trial does not have the parameter.
        value: objective at the last report; None if the trial diverged.
        ending: how the trial ended.
    """

    number: int
    places: tuple[float | None, ...]
    texts: tuple[str, ...]
    value: float | None
    ending: Ending


def axes_of(series: ReportData) -> list[Axis]:
    """Return one axis for each searched parameter."""
    return [_axis(parameter) for parameter in series.result.space.searched]


def slices_of(series: ReportData) -> list[Slice]:
    """Return one slice for each searched parameter, with the trials that have it."""
    return [
        Slice(
            _axis(p),
            tuple(_slice_point(series, p, t) for t in series.trials if p.label in t.draw),
            series.defaults_number,
        )
        for p in series.result.space.searched
    ]


def lines(series: ReportData) -> list[Line]:
    """Return the trials that have a finite value or diverged, by number."""
    searched = series.result.space.searched
    return [
        Line(
            t.number,
            tuple(place(p, t.draw[p.label]) if p.label in t.draw else None for p in searched),
            tuple(_text(t.draw[p.label]) if p.label in t.draw else "" for p in searched),
            value if math.isfinite(value := t.objective(series.metric)) else None,
            ending(t),
        )
        for t in series.trials
        if ending(t) is Ending.DIVERGED or math.isfinite(t.objective(series.metric))
    ]


def place(parameter: Parameter, value: Value) -> float | None:
    """Return the place of a drawn value, from 0 to 1; None if the space no longer has the value."""
    d = parameter.distribution
    if isinstance(d, Range):
        return unit(d, float(value))
    values = _values(cast(Choice, d))
    if value not in values:
        return None
    return values.index(value) / (len(values) - 1) if len(values) > 1 else 0.5


def _axis(p: Parameter) -> Axis:
    d = p.distribution
    title = f"{symbol(p.name)} / {symbol(p.fraction_of)}" if p.fraction_of else symbol(p.name)
    when = condition(p.when) if p.when else ""
    if isinstance(d, Range):
        ticks = tuple((unit(d, value), written(value)) for value in _tick_values(d))
        return Axis(p.label, title, when, ticks, d.low, d.high, d.is_log)
    values = _values(cast(Choice, d))
    ticks = tuple((cast(float, place(p, value)), _text(value)) for value in values)
    texts = tuple(_text(value) for value in values)
    return Axis(p.label, title, when, ticks, 0.0, len(values) - 1.0, False, texts)


def _tick_values(d: Range) -> list[float]:
    """Return both ends, and between them powers of ten on a log scale, else the middle."""
    if d.high <= d.low:
        return [d.low]
    if d.is_log:
        first, last = math.ceil(math.log10(d.low)), math.floor(math.log10(d.high))
        between = [10.0**power for power in range(first, last + 1)]
    else:
        between = [from_unit(d, 0.5)]
    if d.is_whole:
        between = [float(round(value)) for value in between]
    inside = [value for value in between if _NEAR < unit(d, value) < 1 - _NEAR]
    values = [d.low, *inside, d.high]
    return [int(value) for value in values] if d.is_whole else values


def _values(d: Choice) -> list[Value]:
    """Return the values of a choice in the order of its axis."""
    values: Sequence[Value] = numbers(d) or list(dict.fromkeys(d.values))
    return list(values)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else number(value)


def _slice_point(series: ReportData, p: Parameter, trial: Trial) -> SlicePoint:
    drawn, value = trial.draw[p.label], trial.objective(series.metric)
    if isinstance(p.distribution, Choice):
        values = _values(p.distribution)
        # a value that an edit of the search removed is left of the others
        x = float(values.index(drawn)) if drawn in values else -1.0
        x += 0.36 * (trial.number * _GOLDEN % 1 - 0.5)
    else:
        x = float(drawn)
    finite = value if math.isfinite(value) else None
    return SlicePoint(trial.number, x, finite, _text(drawn), ending(trial))
