"""The searched parameters as axes: where each trial lies on them, and what is written there.

A range goes from 0 to 1 as it is drawn from: by its logarithm where it is log-uniform. A choice has
its values at even distances, numbers in rising order.
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

_NEAR = 0.16  # of an axis: ticks closer to its ends than this would be written over them
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Axis:
    """One searched parameter.

    Attributes:
        label: its name in draws.
        title: `α_max`, or `α_min / α_max` for a share.
        when: under which condition it is drawn; empty if always.
        ticks: place and text, in rising order.
        low: lower end; 0 for a choice.
        high: upper end; for a choice, the place of its last value.
        is_log: whether it is drawn from on a log scale.
        values: of a choice, as texts in order; empty for a range.
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
        """The title and the condition."""
        return f"{self.title} (if {self.when})" if self.when else self.title


@dataclass(frozen=True)
class SlicePoint:
    """One trial on a slice.

    Attributes:
        number: of the trial.
        x: what was drawn; of a choice, the place of the value, a little aside so that trials do not
            hide each other.
        value: the objective at its last report; None if it diverged or has none.
        text: what was drawn, as text.
        ending: how it ended.
    """

    number: int
    x: float
    value: float | None
    text: str
    ending: Ending


class Mark(StrEnum):
    """How a trial is marked on a slice, what matters most last."""

    STOPPED = "stopped"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    DIVERGED = "diverged"
    DEFAULTS = "defaults"
    WINNER = "winner"


@dataclass(frozen=True)
class Slice:
    """The trials along one parameter."""

    axis: Axis
    points: tuple[SlicePoint, ...]

    def marked(self, winner: int | None) -> dict[Mark, list[SlicePoint]]:
        """The points that are drawn, by how; one without a value is, if it diverged."""
        found: dict[Mark, list[SlicePoint]] = {mark: [] for mark in Mark}
        for point in self.points:
            if point.value is None and point.ending is not Ending.DIVERGED:
                continue
            mark = Mark(point.ending)
            if point.value is not None and point.number in (0, winner):
                mark = Mark.WINNER if point.number == winner else Mark.DEFAULTS
            found[mark].append(point)
        return found


@dataclass(frozen=True)
class Line:
    """One trial across all axes.

    Attributes:
        number: of the trial.
        places: from 0 to 1 on each axis; None where the trial does not have the parameter.
        texts: what was drawn; empty likewise.
        value: the objective at its last report; None if it diverged.
        ending: how it ended.
    """

    number: int
    places: tuple[float | None, ...]
    texts: tuple[str, ...]
    value: float | None
    ending: Ending


def axes_of(series: ReportData) -> list[Axis]:
    """One axis for each searched parameter."""
    return [_axis(parameter) for parameter in series.result.space.searched]


def slices(series: ReportData) -> list[Slice]:
    """One for each searched parameter, with the trials that have it."""
    return [
        Slice(
            _axis(p),
            tuple(_slice_point(series, p, row) for row in series.trials if p.label in row.draw),
        )
        for p in series.result.space.searched
    ]


def lines(series: ReportData) -> list[Line]:
    """The trials that have a finite value or diverged, by number."""
    searched = series.result.space.searched
    return [
        Line(
            row.number,
            tuple(place(p, row.draw[p.label]) if p.label in row.draw else None for p in searched),
            tuple(_text(row.draw[p.label]) if p.label in row.draw else "" for p in searched),
            value if math.isfinite(value := row.objective(series.metric)) else None,
            ending(row),
        )
        for row in series.trials
        if ending(row) is Ending.DIVERGED or math.isfinite(row.objective(series.metric))
    ]


def place(parameter: Parameter, value: Value) -> float | None:
    """Where a drawn value lies, from 0 to 1; None for one that can be drawn no longer."""
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
    """Both ends; between them powers of ten on a log scale, else the middle."""
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
    """In the order of the axis."""
    ordered: Sequence[Value] = numbers(d) or list(dict.fromkeys(d.values))
    return list(ordered)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else number(value)


def _slice_point(series: ReportData, p: Parameter, row: Trial) -> SlicePoint:
    drawn, value = row.draw[p.label], row.objective(series.metric)
    if isinstance(p.distribution, Choice):
        values = _values(p.distribution)
        # one that was taken out when the search went on lies left of the others
        x = float(values.index(drawn)) if drawn in values else -1.0
        x += 0.36 * (row.number * _GOLDEN % 1 - 0.5)
    else:
        x = float(drawn)
    shown = value if math.isfinite(value) else None
    return SlicePoint(row.number, x, shown, _text(drawn), ending(row))
