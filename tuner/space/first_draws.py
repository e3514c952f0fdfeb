"""The first trials: the defaults, each moved into what its parameter may be; then named points.

Many defaults follow from other values: T_warmup is 5 % of T_total, d_ff about 8/3 of d_model. So a
default is here what the parameter would be if the space left it out, everything else being as in
the first trial. Only what follows from the size of the corpus, by N_epoch, is not known; the
middle of the range is taken then, and it counts as moved.
"""

from __future__ import annotations

from collections.abc import Mapping

from model.spec.hyperparameters import find_symbol
from tuner.formatting import did_you_mean, listed, shown
from tuner.space.parameter import MAY_BE_OFF, Parameter, Value, symbol
from tuner.space.space import SearchSpace


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
        row = find_symbol(key)
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
    return parameter.distribution.as_drawn(value)


def _why_unused(space: SearchSpace, name: str, key: str) -> str:
    those = [p for p in space.parameters if p.name == name]
    if all(p.is_constant for p in those):
        return f"{key} is constant: {' or '.join(p.describe() for p in those)}; take it away"
    asked = {n: values for p in those for n, values in p.when.items()}
    when = listed((f"{symbol(n)} {listed(values)}" for n, values in asked.items()), "and")
    return f"{key} is drawn only with {when}; add that to the point, or take {key} away"
