"""Examples in which every pair of values occurs: faults need one value, or two that meet."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

Place = tuple[str, int]  # a column, and the index of one of its values


def pairwise(columns: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows with a value of each column, so that every pair of values is in some row.

    A row begins with a pair that no row has; then each column takes the value that adds most pairs
    (Cohen et al., "The AETG System", IEEE Transactions on Software Engineering 23, 1997).
    """
    rng = random.Random(seed)
    missing = {
        ((a, i), (b, j))
        for a, b in combinations(sorted(columns), 2)
        for i in range(len(columns[a]))
        for j in range(len(columns[b]))
    }
    rows: list[dict[str, Any]] = []
    while missing:
        row: dict[str, int] = dict(min(missing))
        for name in rng.sample(sorted(columns), len(columns)):
            if name not in row:
                indices = rng.sample(range(len(columns[name])), len(columns[name]))
                row[name] = max(indices, key=lambda i: len(_pairs(row, (name, i)) & missing))
        missing -= {pair for place in row.items() for pair in _pairs(row, place)}
        rows.append({name: columns[name][row[name]] for name in columns})
    return rows


def _pairs(row: Mapping[str, int], place: Place) -> set[tuple[Place, Place]]:
    """Return the pairs of a value with the values of a row's other columns."""
    others = (item for item in row.items() if item[0] != place[0])
    return {(min(place, other), max(place, other)) for other in others}
