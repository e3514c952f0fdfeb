"""Rows of the symbol table, stored in the fields of `Hyperparameters`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import Field
from pydantic.fields import FieldInfo

Value = float | int | str


@dataclass(frozen=True)
class FractionOf:
    """Value of a hyperparameter as a share of another one: α_min = 0.1·α_max."""

    name: str
    share: float


@dataclass(frozen=True)
class Symbol:
    """One row of the symbol table, as read from a field of `Hyperparameters`.

    Attributes:
        name: the Python, YAML and MLflow name.
        symbol: the letter of the literature; the name if there is none.
        spellings: further names that a search space may use.
        meaning: meaning, with the unit.
        formula: formula that the value enters.
        default: a value, or a `FractionOf` another row; None if the budget determines the value.
        kind: float, int, or str for a choice.
        low: smallest value, None for a choice.
        high: largest value, None where there is no limit.
        low_open: True if `low` itself is excluded.
        high_open: True if `high` itself is excluded.
        choices: the values of a choice, otherwise empty.
        choice_meanings: value of a choice → meaning, with its formula if there is one.
        used_when: row name → values for which this row has an effect; empty if always.
    """

    name: str
    symbol: str
    spellings: tuple[str, ...]
    meaning: str
    formula: str
    default: Value | FractionOf | None
    kind: type
    low: float | None
    high: float | None
    low_open: bool
    high_open: bool
    choices: tuple[str, ...]
    choice_meanings: Mapping[str, str]
    used_when: Mapping[str, tuple[str, ...]]

    @property
    def range(self) -> str:
        """Range in mathematical notation: `(0, 1)`, `[0, ∞)`, `adamw | sgd`."""
        if self.choices:
            return " | ".join(self.choices)
        left = "(" if self.low_open else "["
        right = "∞)" if self.high is None else f"{self.high:g}{')' if self.high_open else ']'}"
        return f"{left}{self.low:g}, {right}"

    def accepts(self, value: object) -> bool:
        """Return True if a value is of this row's kind and inside its range."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.kind is int and value != int(value)):
            return False
        low, high = cast(float, self.low), self.high
        above = value > low if self.low_open else value >= low
        below = high is None or (value < high if self.high_open else value <= high)
        return above and below


def symbol_field(
    default: Value | FractionOf | None,
    meaning: str,
    formula: str,
    *,
    symbol: str = "",
    spellings: tuple[str, ...] = (),
    used_when: Mapping[str, tuple[str, ...]] | None = None,
    choice_meanings: Mapping[str, str] | None = None,
    is_late: bool = False,
    **limits: float,
) -> Any:
    """Build a required pydantic field that carries its row; `derive` applies the default.

    A late row is one that older specifications lack: it is not required, and left out of their
    JSON, and so of their hash, at its default.
    """
    extra = {
        "symbol": symbol,
        "spellings": spellings,
        "meaning": meaning,
        "formula": formula,
        "default": default,
        "used_when": used_when or {},
        "choice_meanings": choice_meanings or {},
    }
    late = {"default": default, "exclude_if": lambda value: value == default} if is_late else {}
    return Field(json_schema_extra=cast(Any, {"row": extra}), **cast(Any, limits | late))


def limits_of(field: FieldInfo) -> dict[str, float]:
    """Return the limits of a pydantic field: `gt`, `ge`, `lt`, `le` → number."""
    return {
        limit: getattr(item, limit)
        for item in field.metadata
        for limit in ("gt", "ge", "lt", "le")
        if hasattr(item, limit)
    }


def symbol_of(name: str, info: FieldInfo) -> Symbol:
    """Return the row that a field of `Hyperparameters` carries."""
    extra = cast(dict[str, Any], cast(dict[str, Any], info.json_schema_extra)["row"])
    limits = limits_of(info)
    is_choice = info.annotation not in (int, float)
    return Symbol(
        name=name,
        symbol=extra["symbol"] or name,
        spellings=extra["spellings"],
        meaning=extra["meaning"],
        formula=extra["formula"],
        default=extra["default"],
        kind=str if is_choice else cast(type, info.annotation),
        low=None if is_choice else limits.get("gt", limits.get("ge")),
        high=limits.get("lt", limits.get("le")),
        low_open="gt" in limits,
        high_open="lt" in limits,
        choices=cast(Any, info.annotation).__args__ if is_choice else (),
        choice_meanings=extra["choice_meanings"],
        used_when=extra["used_when"],
    )
