"""Student's paired t-test, and the correction of its p values and intervals for several pairs.

No scipy.stats: to import it takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TypeVar

from tuner.conductor.confirmation import CONFIDENCE, Interval, interval_by

Key = TypeVar("Key", bound=Hashable)


def paired_p(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the mean of some differences; 1 for fewer than two.

    Args:
        differences: one value minus the other, for each seed.
    """
    from scipy.special import stdtr

    if len(differences) < 2:
        return 1.0
    mean, deviation = fmean(differences), stdev(differences)
    if deviation == 0:
        return 0.0 if mean else 1.0
    t = abs(mean) / deviation * math.sqrt(len(differences))
    return float(2 * stdtr(len(differences) - 1, -t))


def corrected(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return p values that are corrected for their number.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = dict[Key, float](), 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return adjusted


def corrected_interval(values: Sequence[float], count: int) -> Interval:
    """Return a mean with its 95 % interval, corrected by Bonferroni's method.

    Args:
        values: two or more values.
        count: number of intervals that all hold together with this confidence.
    """
    from scipy.special import stdtrit

    chance = (1 - CONFIDENCE) / (2 * count)  # in each tail
    quantile = float(stdtrit(len(values) - 1, 1 - chance))
    return interval_by(values, quantile)
