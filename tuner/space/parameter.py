"""Parameters of a search space, and the distributions that their values are drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from model.spec.architecture import Architecture
from model.spec.hyperparameters import LORA_ROWS, SYMBOL_TABLE, Hyperparameters
from model.spec.symbol import FractionOf
from model.spec.trial import TrialSpec
from tuner.texts.formatting import listed, shown

Value = bool | float | int | str

# Entries of `model:` whose default is the value of another entry.
FOLLOWING = {"n_kv_heads": "n_heads", "d_ff": "d_model", "source_length": "context_length"}
# Parameters for which a file may write `off` instead of 0.
MAY_BE_OFF = ("grad_clip", "grad_clip_value", "logit_soft_cap")
# An `int` range of at most this many values is a list, so that sizes may use one.
_LONGEST_LIST = 64


class Frozen(BaseModel):
    """A part of a search space: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# distributions -----------------------------------------------------------------------------


class _Listed(Frozen):
    """A distribution over a list of values; place u in [0, 1] belongs to value ⌊u·n⌋ of n."""

    def possible_values(self) -> list[Value]:
        """Return all values that can be drawn."""
        raise NotImplementedError

    def ends(self) -> list[Value]:
        """Return all values that can be drawn."""
        return self.possible_values()

    def largest(self) -> float:
        """Return the largest number that can be drawn."""
        return max(float(value) for value in self.possible_values())

    def mean(self) -> float:
        """Return the expected number."""
        numbers = [float(value) for value in self.possible_values()]
        return sum(numbers) / len(numbers)

    def contains(self, value: Value) -> bool:
        """Return True if a value can be drawn."""
        return value in self.possible_values()

    def can_place(self, value: Value) -> bool:
        """Return True if `place_of` accepts a value that an older version of the space drew."""
        return self.contains(value)

    def at(self, place: float) -> Value:
        """Return the value at a place in [0, 1]; uniform places give the distribution."""
        values = self.possible_values()
        return values[min(int(place * len(values)), len(values) - 1)]

    def place_of(self, value: Value) -> float:
        """Return the middle of the places of a value."""
        values = self.possible_values()
        return (values.index(value) + 0.5) / len(values)

    def nearest(self, wanted: Value) -> Value:
        """Return the value closest to another one; the middle value for NaN."""
        values = self.possible_values()
        if isinstance(wanted, str):
            return wanted if wanted in values else values[0]
        if math.isnan(wanted):
            return values[len(values) // 2]
        return min(values, key=lambda value: abs(cast(float, value) - wanted))

    def as_drawn(self, value: Value) -> Value:
        """Return a value of the distribution in the type that a draw has: 8.0 becomes 8."""
        values = self.possible_values()
        return values[values.index(value)]


class Constant(_Listed):
    """One fixed value."""

    kind: Literal["value"] = "value"
    value: Value

    @override
    def possible_values(self) -> list[Value]:
        return [self.value]

    def describe(self, unit: str = "") -> str:
        """Return the value as text, followed by a unit."""
        return f"{shown(self.value)}{unit}"


class Choice(_Listed):
    """One value of a list: drawn at random (choice), or each equally often (grid)."""

    kind: Literal["choice", "grid"]
    values: tuple[Value, ...]

    @override
    def possible_values(self) -> list[Value]:
        return list(self.values)

    def describe(self, unit: str = "") -> str:
        """Return `one of 8, 16, 32`, followed by a unit."""
        each = "each of" if self.kind == "grid" else "one of"
        return f"{each} {', '.join(map(shown, self.values))}{unit}"


class Range(Frozen):
    """A number between two ends: uniform or log-uniform, real or whole."""

    kind: Literal["uniform", "log", "int", "int_log"]
    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """True if only whole numbers are drawn."""
        return self.kind in {"int", "int_log"}

    @property
    def is_log(self) -> bool:
        """True if the logarithm is uniform."""
        return self.kind in {"log", "int_log"}

    def possible_values(self) -> list[Value] | None:
        """Return all values that can be drawn; None for a continuous or a long range."""
        if self.is_whole and self.high - self.low < _LONGEST_LIST:
            return list(range(int(self.low), int(self.high) + 1))
        return None

    def ends(self) -> list[Value]:
        """Return the low and the high end."""
        return [int(self.low), int(self.high)] if self.is_whole else [self.low, self.high]

    def largest(self) -> float:
        """Return the largest number that can be drawn."""
        return float(self.high)

    def mean(self) -> float:
        """Return the expected number."""
        low, high = self.low, self.high
        return (high - low) / math.log(high / low) if self.is_log else (low + high) / 2

    def contains(self, value: Value) -> bool:
        """Return True if a value can be drawn."""
        if isinstance(value, str | bool) or (self.is_whole and value != int(value)):
            return False
        return self.low <= value <= self.high

    def can_place(self, value: Value) -> bool:
        """Return True: numbers outside of the range have places below 0 or above 1."""
        return True

    def at(self, place: float) -> Value:
        """Return the number at a place in [0, 1]; uniform places give the distribution."""
        low, high = self._scaled_ends()
        number = low + min(max(place, 0.0), 1.0) * (high - low)
        number = math.exp(number) if self.is_log else number
        number = round(number) if self.is_whole else number
        number = min(max(number, self.low), self.high)
        return int(number) if self.is_whole else number

    def place_of(self, value: Value) -> float:
        """Return the place of a number; a whole number has the middle of its places."""
        low, high = self._scaled_ends()
        number = float(value)
        return ((math.log(number) if self.is_log else number) - low) / (high - low)

    def nearest(self, wanted: Value) -> Value:
        """Return the number closest to another one; the middle of the range for NaN."""
        middle = math.sqrt(self.low * self.high) if self.is_log else (self.low + self.high) / 2
        number = cast(float, wanted)
        number = middle if math.isnan(number) else min(max(number, self.low), self.high)
        return round(number) if self.is_whole else number

    def as_drawn(self, value: Value) -> Value:
        """Return a number of the range in the type that a draw has: 8 becomes 8.0 or stays."""
        return int(value) if self.is_whole else float(value)

    def describe(self, unit: str = "") -> str:
        """Return `log-uniform 0.0001 … 0.03`; with a unit, `0.01 … 0.5 × α_max, log-uniform`."""
        shape = ("whole, " if self.is_whole else "") + ("log-uniform" if self.is_log else "uniform")
        span = f"{shown(self.low)} … {shown(self.high)}"
        return f"{span}{unit}, {shape}" if unit else f"{shape} {span}"

    def _scaled_ends(self) -> tuple[float, float]:
        """Return the ends on the uniform scale, where a whole number owns ±0.5 around it."""
        low, high = self.low, self.high
        if self.is_whole:
            low, high = low - 0.5, high + 0.5
        return (math.log(low), math.log(high)) if self.is_log else (low, high)


AnyDistribution = Constant | Range | Choice
Distribution = Annotated[AnyDistribution, Field(discriminator="kind")]


# parameters --------------------------------------------------------------------------------


class Prior(Frozen):
    """A user's belief about the best value of a parameter; used by `samplers.priors`.

    Attributes:
        centre: best value; for a `fraction_of`, best share.
        confidence: certainty of the belief, in (0, 1).
    """

    centre: Value
    confidence: float = Field(default=0.5, gt=0, lt=1)


class Parameter(Frozen):
    """One entry of `hyperparameters:` or `model:`.

    Attributes:
        name: Python name of the symbol or of the field of `Architecture`.
        distribution: distribution of its values.
        fraction_of: name of the symbol that the drawn value is a share of.
        when: name → values; the parameter is drawn only if each named parameter has one of its
            values, and otherwise keeps its default.
        alternative: number in the list of its entry, from 1; 0 if the entry is no list. The
            conditions of at most one alternative hold.
        prior: belief about the best value.
    """

    name: str
    distribution: Distribution
    fraction_of: str | None = None
    when: Mapping[str, tuple[Value, ...]] = Field(default_factory=dict)
    alternative: int = 0
    prior: Prior | None = None

    @property
    def key(self) -> str:
        """Name in the space: `max_learning_rate`, or `max_learning_rate[2]` in a list."""
        return f"{self.name}[{self.alternative}]" if self.alternative else self.name

    @property
    def label(self) -> str:
        """Name in a draw: the key, or `min_learning_rate/max_learning_rate` for a share."""
        return f"{self.key}/{self.fraction_of}" if self.fraction_of else self.key

    @property
    def is_constant(self) -> bool:
        """True if the parameter has one fixed value."""
        return self.constant is not None

    @property
    def constant(self) -> Value | None:
        """Value of a constant parameter; None for a searched one."""
        return self.distribution.value if self.distribution.kind == "value" else None

    def holds(self, settings: Mapping[str, Value]) -> bool:
        """Return True if `when` holds for the values of other parameters, by name."""
        return all(settings.get(name) in values for name, values in self.when.items())

    def describe(self) -> str:
        """Return the distribution as text, followed by the prior if there is one.

        `log-uniform 0.0001 … 0.03, prior 0.001`, `0.01 … 0.5 × α_max, log-uniform`.
        """
        unit = f" × {symbol(self.fraction_of)}" if self.fraction_of else ""
        prior = f", prior {shown(self.prior.centre)}" if self.prior else ""
        return f"{self.distribution.describe(unit)}{prior}"

    def contains(self, value: Value) -> bool:
        """Return True if a value can be drawn."""
        return self.distribution.contains(value)

    def at(self, place: float) -> Value:
        """Return the value at a place in [0, 1]; uniform places give the distribution."""
        return self.distribution.at(place)

    def place_of(self, value: Value) -> float:
        """Return the middle of the places of a value."""
        return self.distribution.place_of(value)

    def nearest(self, wanted: Value) -> Value:
        """Return the value closest to another one; the middle value for NaN."""
        return self.distribution.nearest(wanted)


def symbol(name: str) -> str:
    """Return the name of a parameter in tables and messages: `α_max`, `d_model`."""
    return SYMBOL_TABLE[name].symbol if name in SYMBOL_TABLE else name


def symbols(parameters: Iterable[Parameter]) -> str:
    """Return `α_max, γ and λ`."""
    return listed((symbol(p.name) for p in parameters), "and")


def rate_row(rows: Hyperparameters) -> str:
    """Return the name of the row that sets the peak of the learning rate under its schedule."""
    others = {"constant": "learning_rate", "noam": "noam_factor"}
    return others.get(rows.schedule, "max_learning_rate")


def peak_rate(spec: TrialSpec) -> float:
    """Return the largest learning rate of a trial."""
    h = spec.hyperparameters
    rate = float(getattr(h, rate_row(h)))
    if h.schedule == "noam":
        return rate / math.sqrt(spec.value_of("d_model") * max(1, h.warmup_steps))
    return rate


def default_value(name: str) -> Value | None:
    """Return the default of a parameter; None if it is derived from other parameters."""
    if name in FOLLOWING:
        return None
    if name in Architecture.model_fields:
        return cast(Value, Architecture.model_fields[name].default)
    default = SYMBOL_TABLE[name].default
    return None if isinstance(default, FractionOf) else default


# Entries of `model:`; two others follow from the tokenizer, and the target from `proxy:`.
_NO_ENTRIES = ("vocab_size", "end_of_text", "target")
SIZES = tuple(n for n in Architecture.model_fields if n not in _NO_ENTRIES)


# key of `lora:` → name of its parameter
LORA_KEYS = {
    "rank": "lora_rank", "targets": "lora_targets",
    **{row.removeprefix("lora_"): row for row in LORA_ROWS},
}  # fmt: skip
SPELLINGS = tuple(s for r in SYMBOL_TABLE.values() for s in (r.name, r.symbol, *r.spellings))
