"""The winner is confirmed: the best configurations retrained with fresh seeds, and compared.

The value that a configuration was selected by is the lowest of many noisy ones, so it is too good
on average (the winner's curse). Only the fresh seeds count here, the same ones for every
configuration: the noise that comes with a seed, such as the order of the data, then falls out of
the difference of two configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from tuner.formatting import metric_text
from tuner.space.objective import SIGNS

_CONFIDENCE = 0.95
_MOST_SEEDS = 20  # that are worth proposing


@dataclass(frozen=True)
class Interval:
    """A mean, and where the true one lies with 95 % confidence.

    Attributes:
        mean: of the values.
        low: end of the interval; -inf if there is one value.
        high: its other end.
    """

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """What stands behind the ±."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Confirmed:
    """One configuration and its retrainings.

    Attributes:
        number: of the trial.
        values: the objective for each seed, in the order of the seeds; infinity if it diverged,
            None if it was not trained to the end.
        mean: of the finite values; infinity (the worst value) if there is none.
        low: lower end of the mean's interval.
        high: upper end.
        diverged: how many retrainings diverged.
    """

    number: int
    values: tuple[float | None, ...]
    mean: float
    low: float
    high: float
    diverged: int

    @property
    def count(self) -> int:
        """Retrainings that are part of the mean."""
        return len(_finite(self.values))


@dataclass(frozen=True)
class Confirmation:
    """The configurations, best first.

    Attributes:
        ranked: those without a diverged retraining come first, by their means.
        mode: whether the smallest or the largest mean is the best.
        difference: second minus first, paired by seed; None if fewer than two seeds have both, or
            if they are ranked by what diverged.
        can_tell_apart: whether the interval of the difference leaves out 0; None without one.
        spread: standard deviation between seeds, pooled over the configurations; None if no
            configuration has two values.
    """

    ranked: tuple[Confirmed, ...]
    mode: Literal["min", "max"]
    difference: Interval | None
    can_tell_apart: bool | None
    spread: float | None

    @property
    def winner(self) -> Confirmed | None:
        """The first; None if none of its retrainings has a value."""
        return self.ranked[0] if self.ranked and self.ranked[0].count else None

    def of(self, number: int) -> Confirmed | None:
        """What came of a trial; None if it was not retrained."""
        return next((entry for entry in self.ranked if entry.number == number), None)

    @property
    def plain(self) -> dict[str, Any]:
        """The same in terms of JSON, null where a number is not finite."""
        return {
            "can_tell_apart": self.can_tell_apart,
            "ranked": [
                {
                    "trial": c.number,
                    **{name: _plain(getattr(c, name)) for name in ("mean", "low", "high")},
                    "values": [_plain(value) for value in c.values],
                }
                for c in self.ranked
            ],
        }


def confirm(
    values: Mapping[int, Sequence[float | None]], mode: Literal["min", "max"] = "min"
) -> Confirmation:
    """Compare configurations by their retrainings.

    Args:
        values: trial number → objective for each seed, in the same order of seeds everywhere; NaN
            or infinity if it diverged, None if it was not trained to the end.
        mode: whether small or large values are good.
    """
    sign = SIGNS[mode]
    entries = [_confirmed(number, given, mode) for number, given in values.items()]
    ranked = tuple(sorted(entries, key=lambda c: (c.diverged, sign * c.mean, c.number)))
    difference = _difference(*ranked[:2]) if len(ranked) > 1 else None
    return Confirmation(
        ranked=ranked,
        mode=mode,
        difference=difference,
        can_tell_apart=None if difference is None else not difference.low <= 0 <= difference.high,
        spread=_spread(entries),
    )


def interval(values: Sequence[float]) -> Interval:
    """Mean of some finite values, with Student's interval.

    Raises:
        ValueError: if there are none.
    """
    if not values:
        raise ValueError("an interval needs a value, got none")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf)
    half = _quantile(len(values)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def sentences(
    confirmation: Confirmation, metric: str, selected: Mapping[int, float] | None = None
) -> list[str]:
    """What was found, for people.

    Args:
        confirmation: the comparison.
        metric: name of the objective.
        selected: trial number → the value that it was selected by.
    """
    winner, selected = confirmation.winner, selected or {}
    if winner is None:
        return ["No winner is confirmed: no retraining has a value."] if confirmation.ranked else []
    told = f"Confirmed winner: trial {winner.number}, {metric} {_mean(winner)}"
    if winner.number in selected:
        told += f"; it was selected with {selected[winner.number]:.4f}"
    lines = [f"{told}.", *_comparison(confirmation)]
    for entry in confirmation.ranked:
        if entry.diverged:
            behind = "" if entry is winner else ", so it ranks behind"
            times = f"{entry.diverged} of {len(entry.values)} retrainings"
            lines.append(f"Trial {entry.number} diverged in {times}{behind}.")
    sign = SIGNS[confirmation.mode]
    best = min(selected, key=lambda n: sign * selected[n], default=winner.number)
    if best != winner.number:
        lines.append(
            f"Trial {best} led the search with {selected[best]:.4f}, but not when retrained."
        )
    return lines


def _comparison(confirmation: Confirmation) -> list[str]:
    """Whether the first two can be told apart, and what would help if not."""
    difference = confirmation.difference
    if difference is None:
        return []
    first, second = confirmation.ranked[:2]
    pairs = _pairs(first, second)
    seeds = f"over the same {len(pairs)} seeds"
    span = f"95 % interval {difference.low:.4f} to {difference.high:.4f}"
    if confirmation.can_tell_apart:
        better = "lower" if confirmation.mode == "min" else "higher"
        told = f"It can be told apart from trial {second.number}"
        return [f"{told}: {abs(difference.mean):.4f} {better}, {span} {seeds}."]
    told = f"It cannot be told apart from trial {second.number}"
    needed = _seeds_needed(pairs)
    way_out = (
        f"confirm: {{seeds: {needed}}} would be enough if the difference is real"
        if needed
        else "take whichever is cheaper"
    )
    return [f"{told}: difference {difference.mean:.4f}, {span} {seeds}; {way_out}."]


def _seeds_needed(differences: Sequence[float]) -> int | None:
    """How many seeds would tell two configurations apart if their mean difference stayed."""
    mean, deviation = abs(fmean(differences)), stdev(differences)
    for count in range(len(differences) + 1, _MOST_SEEDS + 1):
        if _quantile(count) * deviation / math.sqrt(count) < mean:
            return count
    return None


def _confirmed(
    number: int, given: Sequence[float | None], mode: Literal["min", "max"]
) -> Confirmed:
    worst = SIGNS[mode] * math.inf
    values = tuple(v if v is None or math.isfinite(v) else worst for v in given)
    finite = _finite(values)
    of = interval(finite) if finite else Interval(worst, worst, worst)
    return Confirmed(number, values, of.mean, of.low, of.high, values.count(worst))


def _difference(first: Confirmed, second: Confirmed) -> Interval | None:
    pairs = _pairs(first, second)
    if first.diverged != second.diverged or len(pairs) < 2:
        return None
    return interval(pairs)


def _pairs(first: Confirmed, second: Confirmed) -> list[float]:
    """Second minus first, for each seed with which both have a value."""
    return [
        b - a
        for a, b in zip(first.values, second.values, strict=False)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]


def _spread(entries: Sequence[Confirmed]) -> float | None:
    """Standard deviation within configurations, each weighted by its degrees of freedom."""
    squares, freedom = 0.0, 0
    for entry in entries:
        values = _finite(entry.values)
        if len(values) > 1:
            squares += stdev(values) ** 2 * (len(values) - 1)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _mean(entry: Confirmed) -> str:
    if entry.count == 1:
        return f"{metric_text(entry.mean)} (1 seed)"
    half = (entry.high - entry.low) / 2
    return f"{metric_text(entry.mean)} ± {metric_text(half)} ({entry.count} seeds)"


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _quantile(count: int) -> float:
    """Student's t for a two-sided interval of the mean of so many values."""
    from scipy.special import stdtrit  # without the second that scipy.stats takes

    return float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
