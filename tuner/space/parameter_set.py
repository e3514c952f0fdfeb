"""The parameters of a search space and their conditions.

A *draw* is a mapping from `Parameter.label` to the value drawn for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from tuner.space.parameter import Parameter, Value, default_value


class ParameterSet:
    """Parameters in an order in which each comes after those that its `when` names.

    Args:
        parameters: in any order, each with its own label.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._parameters = list(parameters)

    @cached_property
    def ordered(self) -> list[Parameter]:
        """All parameters, each after those that its `when` names.

        Raises:
            ValueError: if conditions form a circle.
        """
        waiting = list(self._parameters)
        ordered: list[Parameter] = []
        while waiting:
            names = {p.name for p in waiting}
            ready = [p for p in waiting if not names.intersection(p.when)]
            if not ready:
                raise ValueError(f"when: {', '.join(names)} wait for each other")
            ordered += ready
            waiting = [p for p in waiting if names.intersection(p.when)]
        return ordered

    @property
    def searched(self) -> list[Parameter]:
        """The parameters that are not constant."""
        return [p for p in self.ordered if not p.is_constant]

    def is_drawn(self, parameter: Parameter, drawn: Mapping[str, Value]) -> bool:
        """Whether a parameter's `when` holds, given the draws before it."""
        return not parameter.when or parameter.holds(self.settings(drawn))

    def settings(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """The value of every parameter that a `when` may name, by name."""
        names = (*Architecture.model_fields, *SYMBOL_TABLE)
        settings = {n: value for n in names if (value := default_value(n)) is not None}
        for p in self.ordered:
            if p.fraction_of or not p.holds(settings):
                continue
            if p.constant is not None:
                settings[p.name] = p.constant
            elif p.label in drawn:
                settings[p.name] = drawn[p.label]
        return settings

    def values(self, drawn: Mapping[str, Value]) -> dict[str, Value | FractionOf]:
        """What a draw sets, by name: the constants and the drawn values whose `when` holds."""
        settings = self.settings(drawn)
        values: dict[str, Value | FractionOf] = {}
        for p in self.ordered:
            value = drawn.get(p.label) if p.constant is None else p.constant
            if value is not None and p.holds(settings):
                share = FractionOf(p.fraction_of, float(value)) if p.fraction_of else None
                values[p.name] = share or value
        return values

    def only_drawn(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The draw that takes from some values, by label, those whose `when` holds."""
        drawn: dict[str, Value] = {}
        for p in self.searched:
            if self.is_drawn(p, drawn):
                drawn[p.label] = values[p.label]
        return drawn
