"""The verdict of a comparison: whether the best arm differs from each other arm, and by how much.

Each arm is tuned alone, and the best of its configurations are retrained with the same fresh seeds
as those of the other arms. The noise of a seed cancels in the difference of two configurations, so
Student's paired t-test compares them. No value by which a configuration was selected counts.

The best arm is chosen by the values that then prove it, and with several arms there are several
chances of an error. So p values are corrected (Holm 1979) for all pairs of configurations of
different arms, whichever of them the verdict names, and intervals likewise (Bonferroni): if no arm
is better than another one, the verdict calls one better in at most 1 % of all searches, and better
or probably better in at most 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

from tuner.conductor.board import Board
from tuner.conductor.confirmation import (
    Confirmation,
    Confirmed,
    Interval,
    finite_pairs,
    or_null,
)
from tuner.conductor.paired_test import corrected, corrected_interval, paired_p
from tuner.conductor.trial import Trial
from tuner.samplers.arms import Arm, arms_of
from tuner.space.objective import SIGNS, sign_of
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import counted, listed

LEVEL = 0.01  # p value below which one arm is called better
_WEAK_LEVEL = 0.05  # below which it is called probably better
_FEWEST_SEEDS = 2  # for a deviation
_MOST_NAMES = 3  # of arms in a headline
_LEAST_SPEED_UP = 1.05  # that is said

_Curve = Sequence[tuple[float, float]]  # tokens (or FLOPs) and loss at each report


@dataclass(frozen=True)
class ArmResult:
    """What a search found with one value of the compared parameter.

    Attributes:
        arm: the value.
        trials: number of its trials.
        tokens: training tokens that its trials took, without retrainings.
        confirmed: its retrained configurations, best first; none if no trial was trained to the
            end.
    """

    arm: Arm
    trials: int
    tokens: int
    confirmed: tuple[Confirmed, ...]

    @property
    def best(self) -> Confirmed | None:
        """The configuration that stands for the arm."""
        return self.confirmed[0] if self.confirmed else None


@dataclass(frozen=True)
class ArmDifference:
    """The best arm against another one.

    Attributes:
        arm: the other arm.
        gain: by how much the best arm is better, in percent of the other's mean, with its 95 %
            interval; None if fewer than two seeds have both values, or if the two differ in their
            number of diverged retrainings.
        p: two-sided p value, corrected for all comparisons; None without a gain.
        pairs: number of seeds with values of both.
        speed_up: tokens (or FLOPs) of the other arm, divided by those after which the best arm has
            the other's loss; None unless the best arm is better, and reports cross this loss.
    """

    arm: Arm
    gain: Interval | None
    p: float | None
    pairs: int
    speed_up: float | None

    @property
    def verdict(self) -> str:
        """`better`, `probably better`, or `cannot be told apart`; without a gain `unknown`."""
        if self.p is None:
            return "unknown"
        if self.p < LEVEL:
            return "better"
        return "probably better" if self.p < _WEAK_LEVEL else "cannot be told apart"


@dataclass(frozen=True)
class ArmComparison:
    """Comparison of the arms.

    Attributes:
        by: name of the compared parameter.
        arms: results, best first: fewest diverged retrainings, then best mean; last those without
            a retraining.
        differences: the best arm against each other retrained one, in the order of `arms`.
        num_pairs: number of pairs of configurations for which p values are corrected.
        unit: what training is counted in, `tokens` or `FLOPs`.
    """

    by: str
    arms: tuple[ArmResult, ...]
    differences: tuple[ArmDifference, ...]
    num_pairs: int
    unit: str

    @property
    def as_json(self) -> dict[str, Any]:
        """The verdict as JSON, with null for a number that is not finite."""
        return {
            "by": self.by,
            "best": self.arms[0].arm.value,
            "arms": [
                {
                    "value": each.arm.value,
                    "is_default": each.arm.is_default,
                    "trials": each.trials,
                    "tokens": each.tokens,
                    "trial": each.best.number if each.best else None,
                    "mean": or_null(each.best.mean) if each.best else None,
                }
                for each in self.arms
            ],
            "differences": [
                {
                    "value": each.arm.value,
                    "verdict": each.verdict,
                    **{
                        key: None if each.gain is None else or_null(value)
                        for key, value in _percents(each.gain).items()
                    },
                    "p": each.p,
                    "seeds": each.pairs,
                    "speed_up": each.speed_up,
                }
                for each in self.differences
            ],
            "pairs_corrected_for": self.num_pairs,
        }


def verdict_of(
    board: Board, space: SearchSpace, confirmation: Confirmation | None
) -> ArmComparison | None:
    """Return the verdict of a search whose retrainings have ended; None without `compare:`."""
    if space.compare is None or confirmation is None or confirmation.winner is None:
        return None
    results = [_result(board, arm, confirmation) for arm in arms_of(space)]
    order = [entry.number for entry in confirmation.ranked]
    results.sort(key=lambda r: order.index(r.best.number) if r.best else len(order))
    pairs = [
        (a, b)
        for one, other in combinations(results, 2)
        for a in one.confirmed
        for b in other.confirmed
    ]
    p_values = corrected({(a.number, b.number): paired_p(finite_pairs(a, b)) for a, b in pairs})
    best, differences = confirmation.winner, []
    for result in results[1:]:
        if (other := result.best) is None:
            continue
        seeds = len(finite_pairs(best, other))
        if best.diverged != other.diverged or seeds < _FEWEST_SEEDS:
            differences.append(ArmDifference(result.arm, None, None, seeds, None))
            continue
        gain = _gain(best, other, SIGNS[confirmation.mode], len(pairs))
        p = p_values[best.number, other.number]
        ratio = None
        if p < _WEAK_LEVEL:
            ratio = speed_up(_mean_curve(board, best.number), _mean_curve(board, other.number))
        differences.append(ArmDifference(result.arm, gain, p, seeds, ratio))
    unit = "tokens" if space.budget.flops is None else "FLOPs"
    return ArmComparison(space.compare.by, tuple(results), tuple(differences), len(pairs), unit)


def _result(board: Board, arm: Arm, confirmation: Confirmation) -> ArmResult:
    trials = [trial for trial in board.searched if arm.has(trial.draw)]
    tokens = sum(trial.tokens_trained for trial in trials)
    numbers = {trial.number for trial in trials}
    confirmed = tuple(entry for entry in confirmation.ranked if entry.number in numbers)
    return ArmResult(arm, len(trials), tokens, confirmed)


# curves ------------------------------------------------------------------------------------------


def speed_up(best: _Curve, other: _Curve) -> float | None:
    """Return how many times as long the other one trains to its last loss; None if unknown.

    The curve of the better one is interpolated between its reports. Where the learning rate falls
    towards the end, this loss would be reached earlier with a schedule that ends there: the number
    is a lower bound.

    Args:
        best: mean curve of the better one, by the number of tokens; smaller values are better.
        other: mean curve of the other one.
    """
    if not other:
        return None
    end, target = other[-1]
    for (before, high), (after, low) in pairwise(best):
        if low <= target < high:
            return end / (before + (after - before) * (high - target) / (high - low))
    return None


def _gain(best: Confirmed, other: Confirmed, sign: int, num_pairs: int) -> Interval:
    """Return the mean gain in percent of the other's mean, with its corrected interval."""
    unit = sign * abs(other.mean) / 100 or 1.0
    return corrected_interval([gain / unit for gain in finite_pairs(best, other)], num_pairs)


def _mean_curve(board: Board, number: int) -> _Curve:
    """Return the mean over the retrainings of a configuration, report by report."""
    retrained = [t for t in board.confirming if t.confirms == number and t.has_finished]
    return [
        (fmean(spent for spent, _ in column), fmean(value for _, value in column))
        for column in zip(*(_curve(board, trial) for trial in retrained), strict=False)
    ]


def _curve(board: Board, trial: Trial) -> _Curve:
    return [(board.spent(trial, report.tokens), value) for report, value in board.curve(trial)]


def _percents(gain: Interval | None) -> dict[str, float]:
    values = (gain.mean, gain.low, gain.high) if gain else (math.nan,) * 3
    return dict(zip(("gain_percent", "low", "high"), values, strict=True))


# sentences ---------------------------------------------------------------------------------------


def verdict_sentences(verdict: ArmComparison, metric: str) -> list[str]:
    """Return the verdict as sentences for the user.

    Args:
        verdict: comparison of the arms.
        metric: name of the objective.
    """
    best = verdict.arms[0].arm
    lines = [_sentence(best, each, metric, verdict.unit) for each in verdict.differences]
    for result in verdict.arms:
        if result.best is None:
            lines.append(f"No trial of {result.arm.text} was trained to the end.")
    fewest, most = (f(each.trials for each in verdict.arms) for f in (min, max))
    trials = ("" if fewest == most else f"{fewest} to ") + counted(most, "trial")
    start = f"Compared by {symbol(verdict.by)}: {counted(len(verdict.arms), 'arm')}, each tuned"
    lines.insert(0, f"{start} alone with {trials} and judged by fresh seeds only.")
    if verdict.num_pairs > 1:
        lines.append(
            f"Intervals (95 %) and p values are corrected for all {verdict.num_pairs} pairs."
        )
    return lines


def headline(verdict: ArmComparison) -> str:
    """Return the verdict in one line: `lion is better than adamw and sgd`."""
    best, by_verdict = verdict.arms[0].arm.text, dict[str, list[str]]()
    for each in verdict.differences:
        by_verdict.setdefault(each.verdict, []).append(each.arm.text)
    if not by_verdict:
        return f"No arm but {best} was trained to the end"
    if by_verdict.keys() == {"better"}:
        return f"{best} is better than {_named(by_verdict['better'], verdict)}"
    if by_verdict.keys() <= {"better", "probably better"}:
        return f"{best} is probably better than {_named(by_verdict['probably better'], verdict)}"
    equal = by_verdict.get("cannot be told apart", []) + by_verdict.get("unknown", [])
    return f"{best} cannot be told apart from {_named(equal, verdict)}"


def _named(arms: Sequence[str], verdict: ArmComparison) -> str:
    if len(arms) <= _MOST_NAMES:
        return listed(arms, "and")
    others = len(verdict.arms) - 1
    return f"{len(arms)} of {others} other arms" if len(arms) < others else "all other arms"


def _sentence(best: Arm, difference: ArmDifference, metric: str, unit: str) -> str:
    other, gain, p = difference.arm.text, difference.gain, difference.p
    if gain is None or p is None:
        why = "their retrainings have too few values in common, or diverged unequally often"
        return f"{best.text} is ahead of {other}, without an interval: {why}."
    numbers = f"({_percent(gain.low)} to {_percent(gain.high)} %, {p_text(p)})"
    seeds = f"over {counted(difference.pairs, 'seed')}"
    if difference.verdict == "cannot be told apart":
        start = f"{best.text} and {other} cannot be told apart"
        return f"{start}: {_percent(gain.mean)} % {numbers} {seeds}."
    lower = "lower" if sign_of(metric) > 0 else "higher"
    text = f"{best.text} is {difference.verdict} than {other}: {metric} {_percent(gain.mean)} % "
    text += f"{lower} {numbers} {seeds}"
    if difference.speed_up is not None and difference.speed_up >= _LEAST_SPEED_UP:
        text += f"; it needs {difference.speed_up:.2g}× fewer {unit} to the same {metric}"
    return f"{text}."


def p_text(p: float) -> str:
    """Return `p = 0.21`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _percent(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"
