"""Combinations of values: all draws of listable parameters, and the corners of a space.

A *draw* is a mapping from `Parameter.label` to the value drawn for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from tuner.space.parameter import Parameter, Value
from tuner.space.parameter_set import ParameterSet

# Parameters that rules between hyperparameters compare, or derive others from.
_COUPLED = (
    "max_learning_rate", "min_learning_rate", "warmup_steps", "cycle_steps", "total_steps",
    "cooldown_steps", "target_sparsity", "prune_start_steps", "prune_end_steps", "epochs",
    "batch_size", "schedule", "context_length",
)  # fmt: skip
_MOST_COMBINATIONS = 4096
_MOST_VALUES = 400_000  # of all combinations together, so that a check takes less than a second


def combinations(
    parameters: ParameterSet, options: Mapping[str, Sequence[Value]]
) -> Iterator[dict[str, Value]]:
    """Yield all draws of some parameters, each drawn from some values where its `when` holds.

    A `when` that depends on a searched parameter without options may hold, so it counts as true.

    Args:
        parameters: parameters of a search space.
        options: label → values, for parameters that are not constant.
    """
    ordered = [p for p in parameters.ordered if p.label in options]
    open_ = {p.name for p in parameters.searched if p.label not in options}

    def extend(drawn: dict[str, Value], rest: list[Parameter]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield drawn
            return
        p, *others = rest
        if open_.intersection(p.when) or parameters.is_drawn(p, drawn):
            for value in options[p.label]:
                yield from extend(drawn | {p.label: value}, others)
        else:
            yield from extend(drawn, others)

    return extend({}, ordered)


def count(parameters: ParameterSet, options: Mapping[str, Sequence[Value]]) -> int:
    """Return the number of `combinations`, of which only those of conditions are built.

    Raises:
        ValueError: if the number of combinations of the conditions is too large.
    """
    ordered = [p for p in parameters.ordered if p.label in options]
    named = {name for p in ordered for name in p.when}
    deciding = {p.label: options[p.label] for p in ordered if p.name in named}
    always = [p for p in ordered if p.label not in deciding and not p.when]
    sometimes = [p for p in ordered if p.label not in deciding and p.when]
    open_ = {p.name for p in parameters.searched if p.label not in options}
    number = 0
    for drawn in _all(parameters, deciding):
        settings = parameters.settings(drawn)
        number += math.prod(
            len(options[p.label])
            for p in sometimes
            if open_.intersection(p.when) or p.holds(settings)
        )
    return number * math.prod(len(options[p.label]) for p in always)


def listed(parameters: ParameterSet, names: Iterable[str]) -> list[dict[str, Value]]:
    """Return every combination of some parameters and the parameters of their conditions.

    Raises:
        ValueError: if one of them is a continuous or a long range, or the number of combinations is
            too large.
    """
    options: dict[str, list[Value]] = {}
    for p in _with_conditions(parameters, names):
        values = p.distribution.possible_values()
        if values is None or p.fraction_of:
            raise ValueError(
                f"{p.name} must be a value, a choice, a grid or a short int range, not "
                f"{p.describe()}"
            )
        if not p.is_constant:
            options[p.label] = values
    return _all(parameters, options)


def corners(
    parameters: ParameterSet,
    wanted: Mapping[str, Value] | None = None,
    names: Iterable[str] | None = None,
) -> list[dict[str, Value]]:
    """Return the draws at which a rule between hyperparameters breaks, if it breaks anywhere.

    Both sides of every rule are rounded products and quotients of drawn numbers. The difference is
    monotonic in each number, so the extremes are at ends of ranges. Parameters that no rule,
    `fraction_of` or `when` connects with another one are left out.

    Args:
        parameters: parameters of a search space.
        wanted: name → value to take, instead of the ends, wherever it can be drawn.
        names: parameters to combine; by default all that rules and fractions connect.

    Raises:
        ValueError: if the number of corners is too large.
    """
    if names is None:
        fractions = [p for p in parameters.ordered if p.fraction_of]
        names = {*_COUPLED, *(n for p in fractions for n in (p.name, cast(str, p.fraction_of)))}
    compared = _with_conditions(parameters, names)
    in_conditions = {name for p in compared for name in p.when}
    options = {
        p.label: _extremes(p, all_values=p.name in in_conditions)
        for p in compared
        if not p.is_constant
    }
    for p in compared:
        value = (wanted or {}).get(p.name)
        if p.label in options and value in (p.distribution.possible_values() or ()):
            options[p.label] = [cast(Value, value)]
    return _all(parameters, options)


def _extremes(parameter: Parameter, *, all_values: bool) -> list[Value]:
    """Return the smallest and largest number; all values of names, or on request."""
    values = parameter.distribution.ends()
    if all_values:
        return parameter.distribution.possible_values() or values
    if isinstance(values[0], str):
        return values
    numbers = cast(list[float], values)
    return [min(numbers), max(numbers)] if len(numbers) > 1 else values


def _with_conditions(parameters: ParameterSet, names: Iterable[str]) -> list[Parameter]:
    """Return some parameters and those of their conditions, in the order of the space."""
    wanted = set(names)
    for p in reversed(parameters.ordered):
        if p.name in wanted:
            wanted.update(p.when)
    return [p for p in parameters.ordered if p.name in wanted]


def _all(
    parameters: ParameterSet, options: Mapping[str, Sequence[Value]]
) -> list[dict[str, Value]]:
    """Return all combinations; few exist, because most conditions exclude each other.

    Raises:
        ValueError: if the number of combinations is too large.
    """
    most = min(_MOST_COMBINATIONS, _MOST_VALUES // max(1, len(parameters.ordered)))
    draws = list(islice(combinations(parameters, options), most + 1))
    if len(draws) > most:
        raise ValueError(
            f"{_first_of(options)} can be combined in more than {most} ways, which cannot all be "
            f"checked; give fewer values or take away a when"
        )
    return draws


def _first_of(labels: Iterable[str]) -> str:
    """Return the first of some labels, and the number of the others."""
    names = list(dict.fromkeys(label.partition("[")[0] for label in labels))
    rest = len(names) - 8
    return ", ".join(names[:8]) + (f" and {rest} more" if rest > 0 else "")
