"""The first trials: the defaults, each moved into what its parameter may be; then named points.

Many defaults follow from other values: T_warmup is 5 % of T_total, d_ff about 8/3 of d_model. So a
default is here what the parameter would be if the space left it out, everything else being as in
the first trial. Only what follows from the size of the corpus, by N_epoch, is not known; the
middle of the range is taken then, and it counts as moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from model.architecture import Activation, Architecture, default_d_ff
from model.hyperparameters import SYMBOL_TABLE, FractionOf, find_row
from tuner.messages import did_you_mean, listed, shown
from tuner.parameters import MAY_BE_OFF, Parameter, Range, Value, possible_values, symbol

if TYPE_CHECKING:
    from tuner.space import SearchSpace


class FirstTrial:
    """What the first trial of a space draws.

    Args:
        space: which has been checked: no `when` and no `fraction_of` leads back to itself.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._budget_tokens = space.budget.tokens
        self._parameters = space.parameters
        self._values: dict[str, Value] = {}  # by name

    def draw(self, parameter: Parameter) -> Value:
        """The value to draw that comes closest to the default."""
        return parameter.nearest(self._wanted(parameter))

    def moves(self, parameter: Parameter) -> bool:
        """Whether the default lies outside of what can be drawn, or may do."""
        row = SYMBOL_TABLE.get(parameter.name)
        if row is not None and row.default is None:  # T_total, N_epoch: there is no default
            return False
        return not _same(self.draw(parameter), self._wanted(parameter))

    def _wanted(self, parameter: Parameter) -> Value:
        """The default, as a share where a share is drawn; NaN if it is not known."""
        if parameter.fraction_of is None:
            return self._default(parameter.name)
        default = SYMBOL_TABLE[parameter.name].default
        if isinstance(default, FractionOf) and default.name == parameter.fraction_of:
            return default.share
        number = cast(float, self._default(parameter.name))
        whole = cast(float, self._value(parameter.fraction_of))
        if whole == 0:  # of which any share is 0
            return math.nan if number else parameter.nearest(math.nan)
        return number / whole

    def _value(self, name: str) -> Value:
        """What a row or an entry of `model:` is in the first trial; NaN if it is not known."""
        if name not in self._values:
            self._values[name] = math.nan  # for what asks for itself, by a when and a default
            self._values[name] = self._given(name)
        return self._values[name]

    def _given(self, name: str) -> Value:
        for p in self._parameters:
            if p.name == name and all(self._value(n) in among for n, among in p.when.items()):
                drawn = self.draw(p)
                return (
                    self._share(name, cast(float, drawn), p.fraction_of) if p.fraction_of else drawn
                )
        return self._default(name)

    def _default(self, name: str) -> Value:
        """What it is if the space leaves it out; NaN if that is not known."""
        if name in Architecture.model_fields:
            return self._default_entry(name)
        if name == "total_steps" and self._budget_tokens is not None:
            tokens = self._number("batch_size") * self._number("context_length")
            return math.nan if math.isnan(tokens) else math.ceil(self._budget_tokens / tokens)
        row = SYMBOL_TABLE[name]
        if not isinstance(row.default, FractionOf):
            return math.nan if row.default is None else row.default
        default = self._share(name, row.default.share, row.default.name)
        # as in `derive`: a default must not break the rules of a short trial
        return max(default, cast(float, row.low)) if row.kind is int else default

    def _default_entry(self, name: str) -> Value:
        """The default of an entry of `model:`, where 0 means that it follows from others."""
        if name == "n_kv_heads":
            return self._value("n_heads")
        if name == "source_length" and self._value("n_encoder_layers"):
            return self._value("context_length")
        if name == "d_ff":
            d_model = self._number("d_model")
            activation = cast(Activation, self._value("activation"))
            return math.nan if math.isnan(d_model) else default_d_ff(int(d_model), activation)
        return cast(Value, Architecture.model_fields[name].default)

    def _share(self, name: str, share: float, of: str) -> float:
        """A share of another row, rounded where the row counts something."""
        value = share * self._number(of)
        return round(value) if SYMBOL_TABLE[name].kind is int and not math.isnan(value) else value

    def _number(self, name: str) -> float:
        return cast(float, self._value(name))


class PointError(ValueError):
    """A point that cannot be tried.

    Attributes:
        key: at which of its keys.
        at_key: whether the key itself is wrong, not its value.
    """

    def __init__(self, key: str, message: str, *, at_key: bool = True) -> None:
        super().__init__(message)
        self.key = key
        self.at_key = at_key


def first_draws(space: SearchSpace) -> list[dict[str, Value]]:
    """What is tried before the sampler is asked: the defaults, the priors' centres, `try_first`.

    Raises:
        PointError: if a point of `try_first` cannot be tried.
    """
    defaults = space.defaults()
    centres = {p.label: p.prior.centre for p in space.searched if p.prior is not None}
    draws = [space.only_drawn(defaults), space.only_drawn(defaults | centres)]
    draws += [named_point(space, point, defaults) for point in space.search.try_first]
    return [draw for i, draw in enumerate(draws) if draw not in draws[:i]]


def named_point(
    space: SearchSpace, point: Mapping[str, Value], defaults: Mapping[str, Value]
) -> dict[str, Value]:
    """The draw of a point that names some parameters; the others are as in the defaults.

    Raises:
        PointError: if it names something that is not drawn there, or a value that cannot be.
    """
    keys: dict[str, str] = {}  # name of the parameter → as the point spells it
    known = {p.name: p for p in space.parameters}
    for key in point:
        row = find_row(key)
        name = row.name if row else key
        if name not in known:
            spellings = [s for p in known.values() for s in (p.name, symbol(p.name))]
            what = "is not searched here" if row else "is unknown"
            way_out = did_you_mean(key, spellings) or f"; known are {listed(spellings, 'and')}"
            raise PointError(key, f"{key} {what}{way_out}")
        if name in keys:
            raise PointError(key, f"{key} and {keys[name]} are the same; keep one")
        keys[name] = key
    drawn: dict[str, Value] = {}
    used: set[str] = set()
    for p in space.searched:
        if not space.is_drawn(p, drawn):
            continue
        drawn[p.label] = defaults[p.label]
        if p.name in keys:
            drawn[p.label] = _named_value(p, keys[p.name], point[keys[p.name]])
            used.add(p.name)
    for name, key in keys.items():
        if name not in used:
            raise PointError(key, _why_unused(space, name, key))
    return drawn


def _named_value(parameter: Parameter, key: str, value: Value) -> Value:
    if value == "off" and parameter.name in MAY_BE_OFF:
        value = 0
    if not parameter.contains(value):
        what = parameter.model_copy(update={"prior": None}).describe()
        message = f"{key} must be {what}, got {shown(value)}"
        raise PointError(key, message, at_key=False)
    if isinstance(parameter.distribution, Range):
        return int(value) if parameter.distribution.is_whole else float(value)
    values = cast(list[Value], possible_values(parameter.distribution))
    return values[values.index(value)]


def _why_unused(space: SearchSpace, name: str, key: str) -> str:
    those = [p for p in space.parameters if p.name == name]
    if all(p.is_constant for p in those):
        return f"{key} is constant: {' or '.join(p.describe() for p in those)}; take it away"
    asked = {n: values for p in those for n, values in p.when.items()}
    when = listed((f"{symbol(n)} {listed(values)}" for n, values in asked.items()), "and")
    return f"{key} is drawn only with {when}; add that to the point, or take {key} away"


def _same(one: Value, other: Value) -> bool:
    """Whether two values are equal but for rounding; NaN equals nothing."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=1e-9)
