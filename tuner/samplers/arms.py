"""Arms of a comparison (`compare:`): the values of one parameter, and the space of each.

An arm is searched as if it were alone: its space has one value of the compared parameter, only the
parameters that this value can have, and an equal share of the trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.space.parameter import Choice, Parameter, Value, symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import shown


@dataclass(frozen=True)
class Arm:
    """One value of the compared parameter.

    Attributes:
        label: label of the parameter in a draw.
        name: name of the parameter.
        value: its value.
        is_default: True if the defaults have this value.
    """

    label: str
    name: str
    value: Value
    is_default: bool

    @property
    def text(self) -> str:
        """The value as text; a number or a truth value with the symbol of its parameter."""
        value = shown(self.value)
        return value if isinstance(self.value, str) else f"{symbol(self.name)} {value}"

    def has(self, draw: Mapping[str, Value]) -> bool:
        """Return True if a draw belongs to this arm."""
        return draw.get(self.label) == self.value


def arms_of(space: SearchSpace) -> list[Arm]:
    """Return the arms of a space, that of the defaults first; none without `compare:`.

    Raises:
        ValueError: if `compare.by` names no single parameter whose values can be listed.
    """
    if space.compare is None:
        return []
    by = space.compare.by
    entries = [p for p in space.parameters if p.name == by]
    values = entries[0].distribution.possible_values() if len(entries) == 1 else None
    if values is None:
        raise ValueError(f"compare.by {shown(by)} is no single parameter with a list of values")
    label = entries[0].label
    default = space.defaults().get(label, values[0])
    arms = [Arm(label, by, value, value == default) for value in values]
    return sorted(arms, key=lambda arm: not arm.is_default)


def space_of(space: SearchSpace, arm: Arm, num_arms: int) -> SearchSpace:
    """Return the space of an arm alone.

    Args:
        space: space of the comparison.
        arm: one of its arms.
        num_arms: number of its arms.
    """

    def narrowed(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
        return {
            key: _with_value(p, arm.value) if p.name == arm.name else p
            for key, p in parameters.items()
            if arm.value in p.when.get(arm.name, (arm.value,))
        }

    trials = space.search.trials // num_arms
    entries: dict[str, Any] = {
        # not a copy, which would keep the cached parameters
        **{field: getattr(space, field) for field in SearchSpace.model_fields},
        "model": narrowed(space.model),
        "hyperparameters": narrowed(space.hyperparameters),
        "search": space.search.model_copy(update={"trials": trials}),
        "compare": None,
    }
    return SearchSpace(**entries)


def _with_value(parameter: Parameter, value: Value) -> Parameter:
    # a choice of one value, not a constant: so it is part of the draws
    only = Choice(kind="choice", values=(value,))
    return parameter.model_copy(update={"distribution": only, "prior": None})


def num_finalists(space: SearchSpace) -> int:
    """Return the number of configurations to confirm, `confirm.top` of each arm.

    It is 0 for several objectives, which have no winner.
    """
    if space.further_objectives:
        return 0
    return space.confirm.top * (len(arms_of(space)) or 1)


def num_confirmations(space: SearchSpace) -> int:
    """Return the number of trials of the confirmation; 0 for several objectives."""
    return min(num_finalists(space), space.search.trials) * space.confirm.seeds
