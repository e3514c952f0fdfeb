"""The first draws of a search: the defaults, proposals, centres of the priors, and `try_first`.

`search.defaults: off` leaves out the first of these, unless the space searches nothing.

Each default is moved into the distribution of its parameter. Many defaults are derived from other
values: T_warmup is 5 % of T_total, d_ff about 8/3 of d_model. So the default here is the value that
the parameter would have if the space left it out, with all other values as in the first trial. Only
values that depend on the size of the corpus, by N_epoch, are unknown: they get the middle of their
range, and count as moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from model.spec.hyperparameters import find_symbol
from tuner.space.parameter import MAY_BE_OFF, Parameter, Range, Value, symbol
from tuner.space.proposals import Proposals
from tuner.space.space import SearchSpace
from tuner.texts.formatting import as_typed, counted, did_you_mean, listed, shown


class PointError(ValueError):
    """An invalid point of `try_first`.

    Attributes:
        key: key of the mistake.
        at_key: True if the key itself is wrong, False if its value is.
    """

    def __init__(self, key: str, message: str, *, at_key: bool = True) -> None:
        super().__init__(message)
        self.key = key
        self.at_key = at_key


def first_draws(
    space: SearchSpace, proposed: Sequence[Mapping[str, Value]] = ()
) -> list[dict[str, Value]]:
    """Return the draws before the sampler: defaults, proposals, the priors' centres, `try_first`.

    Args:
        space: search space.
        proposed: draws that earlier searches propose; those that the space cannot draw, because its
            ranges were edited since, are left out.

    Raises:
        PointError: if a point of `try_first` is invalid.
    """
    defaults = space.defaults()
    centres = {p.label: p.prior.centre for p in space.searched if p.prior is not None}
    draws = []
    if space.search.defaults != "off" or not space.searched:
        draws.append(space.only_drawn(defaults))
    draws += [dict(draw) for draw in proposed if can_draw(space, draw)]
    if centres:
        draws.append(space.only_drawn(defaults | centres))
    draws += [named_point(space, point, defaults) for point in space.search.try_first]
    return [draw for i, draw in enumerate(draws) if draw not in draws[:i]]


def can_draw(space: SearchSpace, draw: Mapping[str, Value]) -> bool:
    """Return True if each value of a draw lies in the range of its parameter."""
    parameters = {p.label: p for p in space.searched}
    return all(label in parameters and parameters[label].contains(v) for label, v in draw.items())


def fitted(proposals: Proposals, space: SearchSpace) -> Proposals:
    """Return proposals with each value moved into the distribution of its parameter in a space."""
    defaults = space.defaults()
    parameters = {p.label: p for p in space.searched}
    draws = [
        space.only_drawn(
            {label: _moved(p, draw.get(label, defaults[label])) for label, p in parameters.items()}
        )
        for draw in proposals.draws
    ]
    known = {label: v for label, v in proposals.centre.items() if label in parameters}
    return replace(
        proposals,
        draws=tuple(draw for i, draw in enumerate(draws) if draw not in draws[:i]),
        centre={label: _moved(parameters[label], value) for label, value in known.items()},
        confidence=proposals.confidence if known else 0.0,
    )


def _moved(parameter: Parameter, value: Value) -> Value:
    if not parameter.contains(value):
        value = parameter.nearest(value)
    return parameter.distribution.as_drawn(value)


def described(space: SearchSpace) -> str:
    """Return the first draws as the begin of a sentence: `2 given points, defaults first, then `.

    Empty if there are none.
    """
    points = first_draws(space)
    if space.search.defaults == "off" and space.searched:
        return f"{counted(len(points), 'given point')}, then " if points else ""
    name = "the raced defaults" if space.search.defaults == "raced" else "the defaults"
    if len(points) == 1:
        return f"{name}, then "
    return f"{len(points)} given points, {name.removeprefix('the ')} first, then "


def named_point(
    space: SearchSpace, point: Mapping[str, Value], defaults: Mapping[str, Value]
) -> dict[str, Value]:
    """Return the draw of a point that names some parameters; others have their defaults.

    Raises:
        PointError: if the point names a parameter or a value that cannot be drawn with it.
    """
    keys: dict[str, str] = {}  # name of a parameter → its spelling in the point
    by_name = {p.name: p for p in space.parameters}
    for key in point:
        entry = find_symbol(key)
        name = entry.name if entry else key
        if name not in by_name:
            symbols = [symbol(name) for name in by_name]
            problem = "is not set in this space" if entry else "is unknown"
            fix = did_you_mean(key, (*by_name, *symbols))
            fix = fix or f"; the space sets {listed(symbols, 'and') or 'nothing'}"
            raise PointError(key, f"{key} {problem}{fix}")
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
        message = f"{key} must be {_rule(parameter)}, got {as_typed(value)}"
        raise PointError(key, message, at_key=False)
    return parameter.distribution.as_drawn(value)


def _rule(parameter: Parameter) -> str:
    """Return what a value of a parameter must be: `in its range, 0.0001 … 0.03`, `one of 8, 16`."""
    distribution = parameter.distribution
    unit = f" × {symbol(parameter.fraction_of)}" if parameter.fraction_of else ""
    if not isinstance(distribution, Range):
        return distribution.describe(unit).replace("each of", "one of")
    low, high = distribution.ends()
    whole = "a whole number " if distribution.is_whole else ""
    return f"{whole}in its range, {shown(low)} … {shown(high)}{unit}"


def _why_unused(space: SearchSpace, name: str, key: str) -> str:
    alternatives = [p for p in space.parameters if p.name == name]
    if all(p.is_constant for p in alternatives):
        return f"{key} is constant: {' or '.join(p.describe() for p in alternatives)}; remove it"
    conditions = {n: values for p in alternatives for n, values in p.when.items()}
    when = listed((f"{symbol(n)} {listed(values)}" for n, values in conditions.items()), "and")
    return f"{key} is drawn only with {when}; add this to the point, or remove {key}"
