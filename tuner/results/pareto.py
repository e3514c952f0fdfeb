"""The Pareto front of a search with several objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.conductor.trial import Trial
from tuner.space.objective import Objective


def pareto_front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the finished trials that no other one dominates, by first objective, then by number.

    A trial dominates another if no objective is worse and one is better. Equal trials are all kept.

    Args:
        trials: any trials; those that were stopped, diverged or lack a value are left out.
        objectives: the objectives.
    """
    points = {
        trial.number: tuple(o.sign * trial.objective(o.metric) for o in objectives)
        for trial in trials
        if trial.has_finished
    }
    points = {n: values for n, values in points.items() if all(map(math.isfinite, values))}
    front = [
        trial
        for trial in trials
        if trial.number in points
        and not any(_dominates(other, points[trial.number]) for other in points.values())
    ]
    return sorted(front, key=lambda trial: (points[trial.number], trial.number))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
