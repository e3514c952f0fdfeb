"""Searched parameters as axes: ticks, and the place of each value.

A range maps to places from 0 to 1, by the logarithm if it is log-uniform. The values of a choice
have equal distances; numbers are in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tuner.report.series import ReportData
from tuner.results.range_edit import condition, from_unit, numbers, unit
from tuner.space.parameter import Choice, Parameter, Range, Value, symbol
from tuner.texts.formatting import number, written

_NEAR = 0.16  # of an axis: the label of a tick closer to an end would overlap the end's label


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


def axes_of(series: ReportData) -> list[Axis]:
    """Return one axis for each searched parameter."""
    return [axis_of(parameter) for parameter in series.result.space.searched]


def place(parameter: Parameter, value: Value) -> float | None:
    """Return the place of a drawn value, from 0 to 1; None if the space no longer has the value."""
    d = parameter.distribution
    if isinstance(d, Range):
        return unit(d, float(value))
    values = values_of(cast(Choice, d))
    if value not in values:
        return None
    return values.index(value) / (len(values) - 1) if len(values) > 1 else 0.5


def axis_of(p: Parameter) -> Axis:
    """Return the axis of a parameter."""
    d = p.distribution
    title = f"{symbol(p.name)} / {symbol(p.fraction_of)}" if p.fraction_of else symbol(p.name)
    when = condition(p.when) if p.when else ""
    if isinstance(d, Range):
        ticks = tuple((unit(d, value), written(value)) for value in _tick_values(d))
        return Axis(p.label, title, when, ticks, d.low, d.high, d.is_log)
    values = values_of(cast(Choice, d))
    ticks = tuple((cast(float, place(p, value)), text_of(value)) for value in values)
    texts = tuple(text_of(value) for value in values)
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


def values_of(d: Choice) -> list[Value]:
    """Return the values of a choice in the order of its axis."""
    values: Sequence[Value] = numbers(d) or list(dict.fromkeys(d.values))
    return list(values)


def text_of(value: Value) -> str:
    """Return a drawn value as text."""
    return value if isinstance(value, str) else number(value)
