"""Several objectives: the trials of which no other one is better in every way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuner.conductor.trial import Trial
from tuner.space.objective import SIGNS, Metric, Mode


def pareto_front(rows: Sequence[Trial], objectives: Mapping[Metric, Mode]) -> list[Trial]:
    """The fully trained trials that no other dominates, by the first objective, then by number.

    One dominates another if it is nowhere worse and somewhere better. Equal ones are all kept.

    Args:
        rows: any trials; those that were stopped, diverged or lack a value are left out.
        objectives: metric → which end of it is good.
    """
    points = {
        row.number: tuple(
            SIGNS[mode] * row.objective(metric) for metric, mode in objectives.items()
        )
        for row in rows
        if row.has_finished
    }
    points = {n: values for n, values in points.items() if all(map(math.isfinite, values))}
    front = [row for row in rows if row.number in points]
    front = [
        row
        for row in front
        if not any(_dominates(other, points[row.number]) for other in points.values())
    ]
    return sorted(front, key=lambda row: (points[row.number], row.number))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
