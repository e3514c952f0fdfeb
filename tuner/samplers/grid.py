"""Sampler `grid`: every combination of the values once, shuffled.

Shuffled, so that the first part of a grid covers more than one corner of it.
"""

from __future__ import annotations

from itertools import islice

from model.keys import derive_key
from tuner.samplers.kind import Draw, SamplerKind
from tuner.space.combinations import combinations
from tuner.space.space import SearchSpace

_MOST_POINTS = 1_000_000  # the limit of `search.trials` is the same


def _points(space: SearchSpace, firsts: list[Draw]) -> list[Draw]:
    """Return every combination that is not tried first."""
    options = {p.label: p.distribution.possible_values() or [] for p in space.searched}
    seen = {frozenset(draw.items()) for draw in firsts}
    points = islice(combinations(space.parameter_set, options), _MOST_POINTS)

    def place(point: Draw) -> int:
        return derive_key(space.search.seed, "grid", repr(sorted(point.items())))

    return sorted((point for point in points if frozenset(point.items()) not in seen), key=place)


KIND = SamplerKind(
    says="tries every combination once, in random order",
    points=_points,
    for_several_objectives=True,
    uses_observations=False,
)
