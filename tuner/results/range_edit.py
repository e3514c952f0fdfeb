"""Moves and shortens ranges and choices, and writes them as lines of a search space.

On the *unit scale* a range goes from 0 to 1 and is drawn uniformly: a log-uniform range by its
logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import limits_of
from model.spec.trial import TrialSpec
from tuner.space.conflicts import conflicts
from tuner.space.parameter import AnyDistribution, Choice, Constant, Parameter, Range, Value, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown, written

End = Literal["lower", "upper"]
# 0 switches these off, instead of being a very small value.
_OFF_AT_ZERO = {"grad_clip", "grad_clip_value"}


def unit(span: Range, value: float) -> float:
    """Return the position of a value on the unit scale of a range, clipped to 0 … 1."""
    low, high = span.low, span.high
    if high <= low:
        return 0.5
    value = min(max(value, low), high)
    if span.is_log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def from_unit(span: Range, position: float) -> float:
    """Return the value at a position on the unit scale; the inverse of `unit`."""
    low, high = span.low, span.high
    if span.is_log:
        return float(low * (high / low) ** position)
    return low + position * (high - low)


def numbers(distribution: AnyDistribution) -> list[float]:
    """Return the sorted values of a choice among numbers; empty for any other distribution."""
    if not isinstance(distribution, Choice) or not all(map(is_number, distribution.values)):
        return []
    return sorted({cast(float, value) for value in distribution.values})


def is_number(value: Value) -> bool:
    """Return True if a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# moving -----------------------------------------------------------------------------------------


def moved(parameter: Parameter, end: End) -> AnyDistribution | None:
    """Return the distribution of a parameter, moved beyond one of its ends.

    A range keeps its width and moves by a third of it, on a log scale if it is log-uniform; a
    choice gets one more value. None if the symbol table does not allow to move the end.
    """
    d = parameter.distribution
    if isinstance(d, Range):
        return _moved_range(parameter, d, end)
    values = numbers(d)
    if not isinstance(d, Choice) or len(values) < 2:
        return None
    value = _next(values if end == "upper" else values[::-1])
    value = int(value) if all(isinstance(v, int) for v in d.values) else _rounded(value, 3)
    if value in values or not _limits(parameter).allow(value):
        return None
    return Choice(kind=d.kind, values=(*values, value) if end == "upper" else (value, *values))


def cut(span: AnyDistribution, low: float, high: float) -> AnyDistribution | None:
    """Return the part of a distribution from `low` to `high`; None if the part is empty."""
    if isinstance(span, Range):
        ends = max(span.low, low), min(span.high, high)
        if span.is_whole:
            ends = math.ceil(ends[0]), math.floor(ends[1])
        return Range(kind=span.kind, low=ends[0], high=ends[1]) if ends[0] < ends[1] else None
    values = tuple(v for v in numbers(span) if low <= v <= high)
    return Choice(kind=cast(Choice, span).kind, values=values) if values else None


def is_possible(
    space: SearchSpace, parameter: Parameter, new: AnyDistribution, spec: TrialSpec
) -> bool:
    """Return True if a space keeps all rules with a new distribution of a parameter.

    Args:
        space: the searched space.
        parameter: a parameter of the space.
        new: the new distribution of the parameter.
        spec: specification of any trial, for the size of the data.
    """
    changed = parameter.model_copy(update={"distribution": new})
    parts = {
        section: {k: changed if p is parameter else p for k, p in getattr(space, section).items()}
        for section in ("model", "hyperparameters")
    }
    # not model_copy: a copy would keep the cached parameters of the space
    other = SearchSpace(**{n: getattr(space, n) for n in SearchSpace.model_fields} | parts)
    length = spec.architecture.context_length
    size = spec.train_sequences if space.data.has_rows else spec.train_sequences * length + 1
    try:
        if parameter.name in Architecture.model_fields:
            other.shapes(spec.architecture.vocab_size)
        if parameter.name == "batch_size":
            micro_batch = other.micro_batch
            if any(cast(int, b) % micro_batch for b in other.batch_sizes):
                return False
    except ValueError:  # from pydantic or from our validators
        return False
    return not conflicts(other, size)


def _moved_range(parameter: Parameter, span: Range, end: End) -> Range | None:
    limits = _limits(parameter)
    by = 1 / 3 if end == "upper" else -1 / 3
    low, high = from_unit(span, by), from_unit(span, 1 + by)
    # an end that would pass a limit becomes the limit, or stays a third below an open one
    near = 0.02 * (high - low)  # rounding might move an end this far, to an open limit
    if high > limits.high - near * limits.high_open:
        high = limits.high - (limits.high - span.high) / 3 if limits.high_open else limits.high
    if low < limits.low + near * limits.low_open and not span.is_log:
        low = limits.low + (span.low - limits.low) / 3 if limits.low_open else limits.low
    if span.is_whole:
        low, high = round(low), round(high)
        low, high = (
            (low, max(high, int(span.high) + 1))
            if end == "upper"
            else (min(low, int(span.low) - 1), high)
        )
    else:
        low, high = _round_ends(span, low, high)
    is_moved = high > span.high if end == "upper" else low < span.low
    is_allowed = limits.allow(high if end == "upper" else low) and (low > 0 or not span.is_log)
    if not is_moved or not is_allowed or low >= high:
        return None
    return Range(kind=span.kind, low=low, high=high)


def _round_ends(span: Range, low: float, high: float) -> tuple[float, float]:
    """Round the ends to as few digits as keep the range about equal."""
    if span.is_log:
        return (_nice(low), _nice(high)) if high / low >= 30 else (_rounded(low), _rounded(high))
    places = 1 - math.floor(math.log10(high - low) + 1e-9)
    return round(low, places), round(high, places)


def _nice(value: float) -> float:
    """Return the nearest of 1, 1.5, 2, 3, 5, 7, 10 times a power of ten, by ratio."""
    power = math.floor(math.log10(value))
    return min(
        (float(f"{m}e{power}") for m in (1, 1.5, 2, 3, 5, 7, 10)),
        key=lambda nice: abs(math.log(nice / value)),
    )


def _next(values: Sequence[float]) -> float:
    """Continue a series by its ratio (near 1, by the ratio of distances to 1) or its difference."""
    before, last = values[-2:]
    if all(isinstance(v, int) for v in values):
        larger, smaller = max(before, last), min(before, last)
        if smaller > 0 and larger % smaller == 0:
            ratio = larger // smaller
            return last * ratio if last > before else last / ratio
        return 2 * last - before
    if all(0.5 <= v < 1 for v in values):
        return 1 - (1 - last) ** 2 / (1 - before)
    return last**2 / before if min(values) > 0 else 2 * last - before


def _rounded(value: float, digits: int = 2) -> float:
    """Round to significant digits; near 1, to those of the distance to 1: 0.9999 has one."""
    if 0.5 < value < 1:
        return 1 - float(f"{1 - value:.{digits - 1}e}")
    return float(f"{value:.{digits - 1}e}")


# limits -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limits:
    """Values that may be drawn; open ends are excluded."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    is_whole: bool = False

    def allow(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and (not self.is_whole or value == int(value))


def _limits(parameter: Parameter) -> _Limits:
    d = parameter.distribution
    if parameter.fraction_of:  # for most parameters a fraction above 1 breaks a rule
        is_above = isinstance(d, Range) and d.high > 1
        return _Limits(0.0, math.inf if is_above else 1.0)
    row = SYMBOL_TABLE.get(parameter.name)
    if row is not None:
        low_open = row.low_open or parameter.name in _OFF_AT_ZERO
        low = -math.inf if row.low is None else row.low
        high = math.inf if row.high is None else row.high
        return _Limits(low, high, low_open, row.high_open, row.kind is int)
    field = Architecture.model_fields[parameter.name]
    limits = limits_of(field)
    return _Limits(
        limits.get("ge", limits.get("gt", -math.inf)),
        limits.get("le", limits.get("lt", math.inf)),
        "gt" in limits,
        "lt" in limits,
        field.annotation is int,
    )


# writing ----------------------------------------------------------------------------------------


def entry(parameter: Parameter, distribution: AnyDistribution) -> str:
    """Return a line of a search space, as `α_min: {fraction_of: α_max, log: [0.01, 0.5]}`."""
    parts = [f"fraction_of: {symbol(parameter.fraction_of)}"] if parameter.fraction_of else []
    if isinstance(distribution, Range):
        ends = f"{written(distribution.low)}, {written(distribution.high)}"
        parts.append(f"{distribution.kind}: [{ends}]")
    elif isinstance(distribution, Constant):
        if not parts and not parameter.when:
            return f"{symbol(parameter.name)}: {written(distribution.value)}"
        parts.append(f"value: {written(distribution.value)}")
    else:
        parts.append(f"{distribution.kind}: [{_listed(distribution.values)}]")
    if parameter.when:
        parts.append(f"when: {{{condition(parameter.when)}}}")
    return f"{symbol(parameter.name)}: {{{', '.join(parts)}}}"


def named(parameter: Parameter) -> str:
    """Return the symbol of a parameter, with its condition if only some trials have it."""
    name = symbol(parameter.name)
    return f"{name} ({shown(condition(parameter.when))})" if parameter.when else name


def condition(when: Mapping[str, tuple[Value, ...]]) -> str:
    """Return a `when` as a search space has it: `optimizer: [adam, adamw]`."""
    return ", ".join(
        f"{symbol(name)}: {written(among[0]) if len(among) == 1 else f'[{_listed(among)}]'}"
        for name, among in when.items()
    )


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(map(written, values))
