"""The first trial of a search: the defaults, moved into the distributions of the space."""

from __future__ import annotations

import math
from typing import cast

from model.spec.architecture import Architecture
from model.spec.choices import Activation, default_d_ff
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.lora import DEFAULT_RANK
from model.spec.symbol import FractionOf
from tuner.space.parameter import Parameter, Value
from tuner.space.parameter_set import ParameterSet


class FirstTrial:
    """Draws of the first trial.

    Args:
        parameters: parameters of a checked space: no circles of `when` or `fraction_of`.
        budget_tokens: `budget.tokens` of the space; None if T_total or N_epoch sets the budget.
    """

    def __init__(self, parameters: ParameterSet, budget_tokens: int | None) -> None:
        self._budget_tokens = budget_tokens
        self._parameters = parameters.ordered
        self._values: dict[str, Value] = {}  # by name

    def draw(self, parameter: Parameter) -> Value:
        """Return the value of a parameter that is closest to its default."""
        return parameter.nearest(self._wanted(parameter))

    def moves(self, parameter: Parameter) -> bool:
        """Return True if the default cannot be drawn, or is unknown."""
        symbol = SYMBOL_TABLE.get(parameter.name)
        if symbol is not None and symbol.default is None:  # T_total and N_epoch have no default
            return False
        return not _same(self.draw(parameter), self._wanted(parameter))

    def _wanted(self, parameter: Parameter) -> Value:
        """Return the default, as a share where a share is drawn; NaN if unknown."""
        if parameter.fraction_of is None:
            return self._default(parameter.name)
        default = SYMBOL_TABLE[parameter.name].default
        if isinstance(default, FractionOf) and default.name == parameter.fraction_of:
            return default.share
        number = cast(float, self._default(parameter.name))
        total = cast(float, self._value(parameter.fraction_of))
        if total == 0:  # any share of 0 is 0
            return math.nan if number else parameter.nearest(math.nan)
        return number / total

    def _value(self, name: str) -> Value:
        """Return the value of a parameter in the first trial; NaN if unknown."""
        if name not in self._values:
            # read by a parameter that depends on itself, by a when and a default
            self._values[name] = math.nan
            self._values[name] = self._computed(name)
        return self._values[name]

    def _computed(self, name: str) -> Value:
        for p in self._parameters:
            if p.name == name and all(self._value(n) in among for n, among in p.when.items()):
                drawn = self.draw(p)
                return (
                    self._share(name, cast(float, drawn), p.fraction_of) if p.fraction_of else drawn
                )
        return self._default(name)

    def _default(self, name: str) -> Value:
        """Return the value of a parameter that the space leaves out; NaN if unknown."""
        if name in Architecture.model_fields:
            return self._default_entry(name)
        if name == "total_steps" and self._budget_tokens is not None:
            tokens = self._number("batch_size") * self._number("context_length")
            return math.nan if math.isnan(tokens) else math.ceil(self._budget_tokens / tokens)
        symbol = SYMBOL_TABLE[name]
        if not isinstance(symbol.default, FractionOf):
            return math.nan if symbol.default is None else symbol.default
        default = self._share(name, symbol.default.share, symbol.default.name)
        # as in `derive`: a default must not break the rules of a short trial
        return max(default, cast(float, symbol.low)) if symbol.kind is int else default

    def _default_entry(self, name: str) -> Value:
        """Return the default of an entry of `model:`; a default of 0 means derived."""
        if name == "n_kv_heads":
            return self._value("n_heads")
        if name == "source_length" and self._value("n_encoder_layers"):
            return self._value("context_length")
        if name == "d_ff":
            d_model = self._number("d_model")
            activation = cast(Activation, self._value("activation"))
            return math.nan if math.isnan(d_model) else default_d_ff(int(d_model), activation)
        if name == "lora_rank" and any(p.name == name for p in self._parameters):
            return DEFAULT_RANK  # 0 is the default of spaces without LoRA
        return cast(Value, Architecture.model_fields[name].default)

    def _share(self, name: str, share: float, of: str) -> float:
        """Return a share of another hyperparameter, rounded for whole numbers."""
        value = share * self._number(of)
        return round(value) if SYMBOL_TABLE[name].kind is int and not math.isnan(value) else value

    def _number(self, name: str) -> float:
        return cast(float, self._value(name))


def _same(one: Value, other: Value) -> bool:
    """Return True if two values are equal up to rounding; NaN equals nothing."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=1e-9)
