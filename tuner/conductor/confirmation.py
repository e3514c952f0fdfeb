"""Compares the best configurations by their retrainings with fresh seeds, and names the winner.

The value by which a configuration was selected is the lowest of many noisy values, so it is too
good on average (the winner's curse). Only the retrainings count here. All configurations are
retrained with the same seeds: the noise of a seed, such as the order of the data, then cancels in
the difference of two configurations.

The mean of the winner is again the best of several, of the finalists now. Student's interval then
contains the true mean less often than it says: in 94 % of all searches with three equally good
finalists, in 89 % with eight. So the intervals are made wider by the number of finalists; see
`_quantile`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from tuner.space.objective import SIGNS
from tuner.texts.formatting import metric_text

CONFIDENCE = 0.95
_POWER = 0.8  # probability with which a recommended number of seeds shows the difference
_MOST_SEEDS = 20  # more are not recommended


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval.

    Attributes:
        mean: mean of the values.
        low: lower end of the interval; -inf if there is one value.
        high: upper end of the interval; inf if there is one value.
    """

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval, the number after ±."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Confirmed:
    """One configuration and its retrainings.

    Attributes:
        number: number of the trial that has the configuration.
        values: objective for each seed, in the order of the seeds; infinity for a retraining that
            diverged, None for one that was not trained to the end.
        mean: mean of the finite values; infinity (the worst value) if there is none.
        low: lower end of the mean's interval, which is valid also if this is the best of all.
        high: upper end of the mean's interval.
        diverged: number of retrainings that diverged.
    """

    number: int
    values: tuple[float | None, ...]
    mean: float
    low: float
    high: float
    diverged: int

    @property
    def count(self) -> int:
        """Number of retrainings in the mean."""
        return len(_finite(self.values))


@dataclass(frozen=True)
class Confirmation:
    """Comparison of the retrained configurations.

    Attributes:
        ranked: configurations, best first: fewest diverged retrainings, then best mean.
        mode: `min` if the smallest mean is the best, `max` if the largest is.
        difference: second configuration minus first, paired by seed; None if fewer than two seeds
            have both values, or if the two differ in their number of diverged retrainings.
        can_tell_apart: True if the interval of the difference excludes 0; None without a
            difference.
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
        """The best configuration; None if none of its retrainings has a value."""
        return self.ranked[0] if self.ranked and self.ranked[0].count else None

    def of(self, number: int) -> Confirmed | None:
        """Return the configuration of a trial; None if it was not retrained."""
        return next((entry for entry in self.ranked if entry.number == number), None)

    @property
    def as_json(self) -> dict[str, Any]:
        """The ranking as JSON, with null for a number that is not finite."""
        return {
            "can_tell_apart": self.can_tell_apart,
            "ranked": [
                {
                    "trial": c.number,
                    **{name: or_null(getattr(c, name)) for name in ("mean", "low", "high")},
                    "values": [or_null(value) for value in c.values],
                }
                for c in self.ranked
            ],
        }


def compare_retrained(
    values: Mapping[int, Sequence[float | None]], mode: Literal["min", "max"] = "min"
) -> Confirmation:
    """Compare configurations by their retrainings.

    Args:
        values: trial → objective for each seed, in the same order of seeds for every trial; NaN or
            infinity for a retraining that diverged, None for one that was not trained to the end.
        mode: `min` if small values are good, `max` if large ones are.
    """
    sign = SIGNS[mode]
    count = max(1, sum(bool(_finite(by_seed)) for by_seed in values.values()))
    entries = [_confirmed(number, by_seed, mode, count) for number, by_seed in values.items()]
    ranked = tuple(sorted(entries, key=lambda c: (c.diverged, sign * c.mean, c.number)))
    difference = _difference(*ranked[:2]) if len(ranked) > 1 else None
    return Confirmation(
        ranked=ranked,
        mode=mode,
        difference=difference,
        can_tell_apart=None if difference is None else not difference.low <= 0 <= difference.high,
        spread=_spread(entries),
    )


def interval(values: Sequence[float], finalists: int = 1) -> Interval:
    """Return the mean of finite values with its confidence interval.

    Args:
        values: the values.
        finalists: number of configurations of which this one may have been chosen by its mean; for
            one and two the interval is Student's.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("an interval needs a value, got none")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf)
    return interval_by(values, _quantile(len(values), finalists))


def interval_by(values: Sequence[float], quantile: float) -> Interval:
    """Return the mean of two or more values, and as many of its deviations on each side.

    Args:
        values: the values.
        quantile: number of deviations of the mean.
    """
    mean, half = fmean(values), quantile * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def summary(
    confirmation: Confirmation,
    metric: str,
    selected: Mapping[int, float] | None = None,
    verdict: Sequence[str] = (),
) -> list[str]:
    """Return the result of a confirmation as sentences for the user.

    Args:
        confirmation: comparison of the configurations.
        metric: name of the objective.
        selected: trial → value by which the trial was selected.
        verdict: sentences that compare arms, instead of the best two configurations.
    """
    winner, selected = confirmation.winner, selected or {}
    if winner is None:
        return ["No winner is confirmed: no retraining has a value."] if confirmation.ranked else []
    first_line = f"Confirmed winner: trial {winner.number}, {metric} {_mean(winner)}"
    if winner.number in selected:
        first_line += f"; it was selected with {selected[winner.number]:.4f}"
    lines = [f"{first_line}.", *(verdict or _comparison(confirmation))]
    for entry in confirmation.ranked:
        if entry.diverged:
            ranking = "" if entry is winner else ", so it ranks behind"
            count = f"{entry.diverged} of {len(entry.values)} retrainings"
            lines.append(f"Trial {entry.number} diverged in {count}{ranking}.")
    sign = SIGNS[confirmation.mode]
    best = min(selected, key=lambda n: sign * selected[n], default=winner.number)
    if best != winner.number:
        lines.append(
            f"Trial {best} led the search with {selected[best]:.4f}, but not when retrained."
        )
    return lines


def _comparison(confirmation: Confirmation) -> list[str]:
    """Say whether the first two configurations differ, and how many seeds would show it."""
    difference = confirmation.difference
    if difference is None:
        return []
    first, second = confirmation.ranked[:2]
    pairs = finite_pairs(first, second)
    seeds = f"over the same {len(pairs)} seeds"
    span = f"95 % interval {difference.low:.4f} to {difference.high:.4f}"
    if confirmation.can_tell_apart:
        better = "lower" if confirmation.mode == "min" else "higher"
        verdict = f"It can be told apart from trial {second.number}"
        return [f"{verdict}: {abs(difference.mean):.4f} {better}, {span} {seeds}."]
    verdict = f"It cannot be told apart from trial {second.number}"
    needed = _seeds_needed(pairs)
    fix = (
        f"if this is the true difference, confirm: {{seeds: {needed}}} would show it with a "
        f"probability of {100 * _POWER:.0f} %"
        if needed
        else "take whichever is cheaper"
    )
    return [f"{verdict}: difference {difference.mean:.4f}, {span} {seeds}; {fix}."]


def _seeds_needed(differences: Sequence[float]) -> int | None:
    """Return the number of seeds that would tell apart two configurations, with `_POWER`.

    Mean and deviation of their difference are taken for the true ones. None if more than
    `_MOST_SEEDS` are needed.
    """
    mean, deviation = abs(fmean(differences)), stdev(differences)
    if not deviation:
        return None
    counts = range(len(differences) + 1, _MOST_SEEDS + 1)
    return next((n for n in counts if _power(n, mean / deviation) >= _POWER), None)


def _power(count: int, effect: float) -> float:
    """Return the probability that `count` values have an interval of their mean without 0.

    Args:
        count: number of independent normal values.
        effect: their true mean, in standard deviations.

    Source: noncentral t, as in Cohen 1988, Statistical Power Analysis, section 2.
    """
    from scipy.special import nctdtr

    quantile, shift = _quantile(count), effect * math.sqrt(count)
    between = nctdtr(count - 1, shift, quantile) - nctdtr(count - 1, shift, -quantile)
    return float(1 - between)


def _confirmed(
    number: int, by_seed: Sequence[float | None], mode: Literal["min", "max"], finalists: int
) -> Confirmed:
    worst = SIGNS[mode] * math.inf
    values = tuple(v if v is None or math.isfinite(v) else worst for v in by_seed)
    finite = _finite(values)
    mean = interval(finite, finalists) if finite else Interval(worst, worst, worst)
    return Confirmed(number, values, mean.mean, mean.low, mean.high, values.count(worst))


def _difference(first: Confirmed, second: Confirmed) -> Interval | None:
    pairs = finite_pairs(first, second)
    if first.diverged != second.diverged or len(pairs) < 2:
        return None
    return interval(pairs)


def finite_pairs(first: Confirmed, second: Confirmed) -> list[float]:
    """Return second minus first for each seed with which both have a finite value."""
    return [
        b - a
        for a, b in zip(first.values, second.values, strict=False)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]


def _spread(entries: Sequence[Confirmed]) -> float | None:
    """Return the standard deviation between seeds, weighted by degrees of freedom."""
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


def or_null(value: float | None) -> float | None:
    """Return a number; None, JSON's null, for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _quantile(count: int, finalists: int = 1) -> float:
    """Return the factor of the standard error in the interval of the mean of `count` values.

    It is Student's t with the chance p = α/finalists in each tail, at most α/2, which covers the
    one that is selected by its mean. Proof, for errors that are distributed symmetrically, and
    equally in all finalists: let a mean be too good, or too bad, by at least this factor with the
    chance p each. The selection of i among all is at most as likely as that i beats j, and

        P(i beats j | i is too good) + P(j beats i | j is too bad) = 1 for all i ≠ j.

    So p·Σ_i (P(i selected | too good) + P(i selected | too bad)), the chance of an error, is at
    most 2p per pair of finalists; averaged over all pairings, p per finalist. Hence two finalists
    need no correction. Skewed errors are covered less often: exponential ones in 81 of 100 cases
    instead of 95, with three finalists of three seeds, because Student's t assumes normal ones.

    Args:
        count: number of values.
        finalists: number of configurations of which the one with the best mean is chosen.
    """
    from scipy.special import stdtrit  # importing scipy.stats would take a second

    chance = (1 - CONFIDENCE) / max(2, finalists)
    return float(stdtrit(count - 1, 1 - chance))
