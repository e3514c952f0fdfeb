"""Exploring: the hyperparameters of a trial that goes on from the state of another.

A copy inherits all that its state or the counting of its updates depends on: the architecture, the
optimizer, B, T_total, N_epoch, β_ema and the rows of pruning. Everything else may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import KEPT_SYMBOLS
from tuner.space.parameter import Choice, Parameter, Range, Value
from tuner.space.space import SearchSpace

Draw = Mapping[str, Value]
# What becomes of a parameter's value; None: there is none that can be drawn, because its `when` did
# not hold before, or because its choice has been edited since.
Change = Callable[[Parameter, Value | None], Value]

# Tells the random numbers of exploring from those that others draw with the same seed.
_STREAM = 0x9B7


def generator(seed: int, *place: int) -> np.random.Generator:
    """Random numbers for one place: a function of seed and place, never of earlier draws."""
    return np.random.default_rng([seed, _STREAM, *place])


def explored(space: SearchSpace, draw: Draw, change: Change) -> dict[str, Value]:
    """A draw with other values: each explored parameter changed whose `when` holds in the end.

    Values of parameters whose `when` holds no more are left out.
    """
    new: dict[str, Value] = {}
    may_change = {p.label for p in space.explored}
    for p in space.searched:  # each after those that its `when` asks about
        label = p.label
        value = draw.get(label)
        if label not in may_change:
            if value is not None:
                new[label] = value
        elif space.is_drawn(p, new):
            is_kept = value is not None and p.distribution.can_place(value)
            new[label] = change(p, value if is_kept else None)
    return new


def is_allowed(space: SearchSpace, train_size: int, parent: Draw, draw: Draw) -> bool:
    """Whether a draw keeps the rules between rows, and can go on from a state of its parent."""
    try:
        before, after = (space.derive(d, train_size) for d in (parent, draw))
    except ValueError:
        return False
    shapes = [
        {name: value for name, value in space.values(d).items() if name not in SYMBOL_TABLE}
        for d in (parent, draw)
    ]
    return shapes[0] == shapes[1] and all(
        getattr(before, n) == getattr(after, n) for n in KEPT_SYMBOLS
    )


def first_allowed(
    space: SearchSpace, train_size: int, parent: Draw, draws: Iterable[Draw]
) -> dict[str, Value]:
    """The first of some draws that is allowed; the parent's own if none is."""
    for draw in draws:
        if is_allowed(space, train_size, parent, draw):
            return dict(draw)
    return dict(parent)


# one value ---------------------------------------------------------------------------------


def sample(parameter: Parameter, random: np.random.Generator) -> Value:
    """A value from a parameter's distribution."""
    return parameter.at(float(random.random()))


def perturbed(
    parameter: Parameter, value: Value, factor: float, random: np.random.Generator
) -> Value:
    """A number times or divided by a factor, or a value beside one in a list."""
    d, up = parameter.distribution, random.random() < 0.5
    if isinstance(d, Range):
        number = cast(float, value)
        moved = number * factor if up else number / factor
        if d.is_whole and round(moved) == number:  # a small count would never change
            moved = number + (1 if up else -1)
        return parameter.nearest(moved)
    assert isinstance(d, Choice)
    index = d.values.index(value) + (1 if up else -1)
    return d.values[min(max(index, 0), len(d.values) - 1)]
