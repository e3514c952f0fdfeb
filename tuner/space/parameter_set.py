"""Parameters of a search space in the order of their conditions.

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
    """Parameters and their conditions.

    Args:
        parameters: parameters in any order, each with its own label.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._parameters = list(parameters)

    @cached_property
    def ordered(self) -> list[Parameter]:
        """All parameters, each after the parameters of its `when`.

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

    @cached_property
    def searched(self) -> list[Parameter]:
        """The parameters that are not constant."""
        return [p for p in self.ordered if not p.is_constant]

    @cached_property
    def _defaults(self) -> dict[str, Value]:
        names = (*Architecture.model_fields, *SYMBOL_TABLE)
        return {n: value for n in names if (value := default_value(n)) is not None}

    def is_drawn(self, parameter: Parameter, drawn: Mapping[str, Value]) -> bool:
        """Return True if a parameter's `when` holds for the values drawn before it."""
        return not parameter.when or parameter.holds(self.settings(drawn))

    def settings(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Return the value of every parameter that a `when` may name: name → value."""
        settings = self._defaults.copy()
        for p in self.ordered:
            if p.fraction_of or not p.holds(settings):
                continue
            if p.constant is not None:
                settings[p.name] = p.constant
            elif p.label in drawn:
                settings[p.name] = drawn[p.label]
        return settings

    def values(self, drawn: Mapping[str, Value]) -> dict[str, Value | FractionOf]:
        """Return the constants and drawn values whose `when` holds: name → value."""
        settings = self.settings(drawn)
        values: dict[str, Value | FractionOf] = {}
        for p in self.ordered:
            value = drawn.get(p.label) if p.constant is None else p.constant
            if value is not None and p.holds(settings):
                share = FractionOf(p.fraction_of, float(value)) if p.fraction_of else None
                values[p.name] = share or value
        return values

    def only_drawn(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the draw with those of some values, by label, whose `when` holds."""
        drawn: dict[str, Value] = {}
        for p in self.searched:
            if self.is_drawn(p, drawn):
                drawn[p.label] = values[p.label]
        return drawn
