"""Exploring: hyperparameters of a trial that continues from the checkpoint of another.

A copy inherits every value that the checkpoint or the counting of updates depends on: the
architecture, the optimizer, B, T_total, N_epoch, β_ema and the pruning hyperparameters. All other
hyperparameters may change.
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
# Function from a parameter and its old value to its new value. The old value is None if `when` did
# not hold before, or if an edit of the space removed the value from its choice.
Change = Callable[[Parameter, Value | None], Value]

# Separates the random numbers of exploring from other ones drawn with the same seed. `model.keys`
# would do so by name, but recorded searches depend on these numbers: resuming a search repeats its
# draws, so the stream must not change.
_STREAM = 0x9B7


def generator(seed: int, *place: int) -> np.random.Generator:
    """Return a generator keyed by seed and place, independent of earlier draws."""
    return np.random.default_rng([seed, _STREAM, *place])


def explored(space: SearchSpace, draw: Draw, change: Change) -> dict[str, Value]:
    """Return a draw in which each explored parameter whose `when` holds is changed.

    Values of parameters whose `when` no longer holds are left out.
    """
    new: dict[str, Value] = {}
    may_change = {p.label for p in space.explored}
    for p in space.searched:  # each after the parameters of its `when`
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
    """Return True if a draw keeps all rules, and can continue from its parent's checkpoint."""
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
    """Return the first allowed draw; the parent's draw if none is allowed."""
    for draw in draws:
        if is_allowed(space, train_size, parent, draw):
            return dict(draw)
    return dict(parent)


# one value ---------------------------------------------------------------------------------


def sample(parameter: Parameter, random: np.random.Generator) -> Value:
    """Return a random value of a parameter."""
    return parameter.at(float(random.random()))


def perturbed(
    parameter: Parameter, value: Value, factor: float, random: np.random.Generator
) -> Value:
    """Return a number multiplied or divided by a factor, or a neighbour in a list."""
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
