"""One entry of `hyperparameters:` or `model:`, and the distribution that it is drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from tuner.formatting import shown

Value = bool | float | int | str

# Entries of `model:` that follow from others if nothing sets them.
FOLLOWING = {"n_kv_heads": "n_heads", "d_ff": "d_model", "source_length": "context_length"}
# Where `off` may be written for 0.
MAY_BE_OFF = ("grad_clip", "grad_clip_value", "logit_soft_cap")
# An `int` range of at most this many values can be listed, so that sizes may use one.
_LONGEST_LIST = 64


class Frozen(BaseModel):
    """A part of a search space: cannot be changed, and knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Constant(Frozen):
    """Always the same value."""

    kind: Literal["value"] = "value"
    value: Value


class Range(Frozen):
    """A number between two ends: uniform, log-uniform, or whole."""

    kind: Literal["uniform", "log", "int", "int_log"]
    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.kind in {"int", "int_log"}

    @property
    def is_log(self) -> bool:
        """Whether each factor of ten is as likely as any other."""
        return self.kind in {"log", "int_log"}


class Choice(Frozen):
    """One of some values: drawn (choice), or each in turn (grid)."""

    kind: Literal["choice", "grid"]
    values: tuple[Value, ...]


AnyDistribution = Constant | Range | Choice
Distribution = Annotated[AnyDistribution, Field(discriminator="kind")]


class Prior(Frozen):
    """What a parameter is believed to be best at; `priors` says what comes of it.

    Attributes:
        centre: the value; of a `fraction_of`, the share.
        confidence: how sure that is, from 0, not at all, to 1.
    """

    centre: Value
    confidence: float = Field(default=0.5, gt=0, lt=1)


class Parameter(Frozen):
    """One entry of `hyperparameters:` or `model:`.

    Attributes:
        name: Python name of the row or of the architecture's field.
        distribution: how it is drawn.
        fraction_of: the row that the drawn value is a share of.
        when: name → values: it is drawn only if all of these hold, else it keeps its default.
        alternative: number in its entry, from 1, if that is a list; at most one of them holds.
        prior: what it is believed to be best at.
    """

    name: str
    distribution: Distribution
    fraction_of: str | None = None
    when: Mapping[str, tuple[Value, ...]] = Field(default_factory=dict)
    alternative: int = 0
    prior: Prior | None = None

    @property
    def key(self) -> str:
        """Its name in the space: `max_learning_rate`, or `max_learning_rate[2]` in a list."""
        return f"{self.name}[{self.alternative}]" if self.alternative else self.name

    @property
    def label(self) -> str:
        """Name of the draw: that in the space, or `min_learning_rate/max_learning_rate`."""
        return f"{self.key}/{self.fraction_of}" if self.fraction_of else self.key

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to draw."""
        return isinstance(self.distribution, Constant)

    def holds(self, settings: Mapping[str, Value]) -> bool:
        """Whether its `when` holds, given the values of other parameters by name."""
        return all(settings.get(name) in values for name, values in self.when.items())

    def describe(self) -> str:
        """`log-uniform 0.0001 … 0.03`, `one of 8, 16, 32`, `0.01 … 0.5 × α_max, log-uniform`.

        And `, prior 0.001`, if there is one.
        """
        prior = f", prior {shown(self.prior.centre)}" if self.prior else ""
        return f"{self._describe()}{prior}"

    def _describe(self) -> str:
        d = self.distribution
        times = f" × {symbol(self.fraction_of)}" if self.fraction_of else ""
        if isinstance(d, Constant):
            return f"{shown(d.value)}{times}"
        if isinstance(d, Choice):
            each = "each of" if d.kind == "grid" else "one of"
            return f"{each} {', '.join(map(shown, d.values))}{times}"
        how = ("whole, " if d.is_whole else "") + ("log-uniform" if d.is_log else "uniform")
        span = f"{shown(d.low)} … {shown(d.high)}"
        return f"{span}{times}, {how}" if times else f"{how} {span}"

    def contains(self, value: Value) -> bool:
        """Whether a value can be drawn."""
        return _contains(self.distribution, value)

    def at(self, place: float) -> Value:
        """The value at a place from 0 to 1: evenly spread places are drawn evenly."""
        return _at(self.distribution, place)

    def place(self, value: Value) -> float:
        """The place of a value, in the middle of the places that have it."""
        return _place(self.distribution, value)

    def nearest(self, wanted: Value) -> Value:
        """The value to draw that is closest to a wanted one; NaN wants the middle."""
        return _nearest(self.distribution, wanted)


def symbol(name: str) -> str:
    """How a parameter is written in tables and messages: `α_max`, `d_model`."""
    return SYMBOL_TABLE[name].symbol if name in SYMBOL_TABLE else name


def default_value(name: str) -> Value | None:
    """What a parameter is if nothing sets it; None if that follows from other parameters."""
    if name in FOLLOWING:
        return None
    if name in Architecture.model_fields:
        return cast(Value, Architecture.model_fields[name].default)
    default = SYMBOL_TABLE[name].default
    return None if isinstance(default, FractionOf) else default


def possible_values(distribution: AnyDistribution) -> list[Value] | None:
    """Every value that can be drawn; None for a continuous or a long range."""
    if isinstance(distribution, Constant):
        return [distribution.value]
    if isinstance(distribution, Choice):
        return list(distribution.values)
    if distribution.is_whole and distribution.high - distribution.low < _LONGEST_LIST:
        return list(range(int(distribution.low), int(distribution.high) + 1))
    return None


def ends(distribution: AnyDistribution) -> list[Value]:
    """Both ends of a range; all values of a choice."""
    if isinstance(distribution, Range):
        low, high = distribution.low, distribution.high
        return [int(low), int(high)] if distribution.is_whole else [low, high]
    return cast(list[Value], possible_values(distribution))


def largest(distribution: AnyDistribution) -> float:
    """The largest number that can be drawn."""
    return max(float(value) for value in ends(distribution))


def mean(distribution: AnyDistribution) -> float:
    """The number that is drawn on average."""
    if not isinstance(distribution, Range):
        values = [float(value) for value in ends(distribution)]
        return sum(values) / len(values)
    low, high = distribution.low, distribution.high
    return (high - low) / math.log(high / low) if distribution.is_log else (low + high) / 2


def _contains(distribution: AnyDistribution, value: Value) -> bool:
    if not isinstance(distribution, Range):
        return value in cast(list[Value], possible_values(distribution))
    if isinstance(value, str | bool) or (distribution.is_whole and value != int(value)):
        return False
    return distribution.low <= value <= distribution.high


def _at(distribution: AnyDistribution, place: float) -> Value:
    if not isinstance(distribution, Range):
        values = cast(list[Value], possible_values(distribution))
        return values[min(int(place * len(values)), len(values) - 1)]
    low, high = _scaled_ends(distribution)
    number = low + min(max(place, 0.0), 1.0) * (high - low)
    number = math.exp(number) if distribution.is_log else number
    number = round(number) if distribution.is_whole else number
    number = min(max(number, distribution.low), distribution.high)
    return int(number) if distribution.is_whole else number


def _place(distribution: AnyDistribution, value: Value) -> float:
    if not isinstance(distribution, Range):
        values = cast(list[Value], possible_values(distribution))
        return (values.index(value) + 0.5) / len(values)
    low, high = _scaled_ends(distribution)
    number = float(value)
    return ((math.log(number) if distribution.is_log else number) - low) / (high - low)


def _scaled_ends(distribution: Range) -> tuple[float, float]:
    """The ends on the scale that is drawn from evenly; each whole number has the unit about it."""
    low, high = distribution.low, distribution.high
    if distribution.is_whole:
        low, high = low - 0.5, high + 0.5
    return (math.log(low), math.log(high)) if distribution.is_log else (low, high)


def _nearest(distribution: AnyDistribution, wanted: Value) -> Value:
    """The value of a distribution that is closest to a wanted one; NaN wants the middle."""
    if isinstance(distribution, Range):
        low, high = distribution.low, distribution.high
        middle = math.sqrt(low * high) if distribution.is_log else (low + high) / 2
        number = cast(float, wanted)
        number = middle if math.isnan(number) else min(max(number, low), high)
        return round(number) if distribution.is_whole else number
    values = cast(list[Value], possible_values(distribution))
    if isinstance(wanted, str):
        return wanted if wanted in values else values[0]
    if math.isnan(wanted):
        return values[len(values) // 2]
    return min(values, key=lambda value: abs(cast(float, value) - wanted))


# What follows from the tokenizer is no entry.
SIZES = tuple(n for n in Architecture.model_fields if n not in ("vocab_size", "end_of_text"))


SPELLINGS = tuple(s for r in SYMBOL_TABLE.values() for s in (r.name, r.symbol, *r.spellings))
