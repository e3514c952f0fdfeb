"""Numbers of the plots of a search.

The *level* of a report is its number, counted from 1 at the first report of the full budget: a
trial that continues from a checkpoint of another trial starts above level 1.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from statistics import quantiles

from model.engine.report import Report, Status
from tuner.conductor.trial import Trial
from tuner.results.result import SearchResult
from tuner.space.objective import sign_of

_FENCE = 3.0  # Tukey's outer fence: values beyond it would flatten the curves of all others
_FEWEST_FENCED = 8  # values, to know the usual range
_WIDE = 5.0  # largest / smallest value: above, the scale is logarithmic


class Ending(StrEnum):
    """Ending of a trial, as plots distinguish it."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by the scheduler, or by a limit of the search
    DIVERGED = "diverged"
    OTHER = "unfinished"  # it failed, or the search was interrupted


def ending(row: Trial) -> Ending:
    """Return how a trial ended."""
    if row.has_diverged or row.outcome == str(Status.DIVERGED):
        return Ending.DIVERGED
    if row.has_finished:
        return Ending.FINISHED
    return Ending.STOPPED if row.is_stopped else Ending.OTHER


@dataclass(frozen=True)
class Curve:
    """Learning curve of one trial.

    Attributes:
        number: number of the trial.
        level: level of its last report; 0 if it has no report.
        ending: how the trial ended.
        tokens: training tokens of each point, those of a parent included; the curve of a trial
            that continues a parent starts with a point of the parent.
        values: objective at each point, all finite.
        diverged: tokens at which the trial diverged, and its last finite value; else None.
    """

    number: int
    level: int
    ending: Ending
    tokens: tuple[int, ...]
    values: tuple[float, ...]
    diverged: tuple[int, float] | None = None


@dataclass(frozen=True)
class BestSoFar:
    """Best value of the finished trials: a point for each improvement, and one for the end.

    Attributes:
        tokens: tokens that all trials had trained.
        seconds: time since the search started; None if the record does not have all times.
        values: best objective of a finished trial so far.
        trials: numbers of the trials that reached the values.
    """

    tokens: tuple[int, ...]
    seconds: tuple[float, ...] | None
    values: tuple[float, ...]
    trials: tuple[int, ...]


@dataclass(frozen=True)
class RungCounts:
    """Number of trials that reached one report, and their further course.

    Attributes:
        level: level of the report.
        reached: trials that reached it; the sum of the other numbers.
        continued: trials that trained further.
        stopped: trials that were stopped at this report.
        diverged: trials that diverged between the previous report and this one.
        finished: trials whose budget ended at this report.
        other: trials that failed after it, or were interrupted here.
    """

    level: int
    reached: int
    continued: int
    stopped: int
    diverged: int
    finished: int
    other: int


@dataclass(frozen=True)
class Front:
    """Trials in the plane of two objectives.

    Attributes:
        metrics: metrics of the horizontal and the vertical axis.
        points: number of the trial, its two values, and True if it is on the Pareto front of all
            objectives.
    """

    metrics: tuple[str, str]
    points: tuple[tuple[int, float, float, bool], ...]


class ReportData:
    """Series of one search, each computed on first use.

    Args:
        result: result of the search.
    """

    def __init__(self, result: SearchResult) -> None:
        self.result = result
        self.metric = result.metric
        self.sign = result.space.objective.sign
        self._steps: dict[int, tuple[int, ...]] = {}

    @property
    def trials(self) -> list[Trial]:
        """Trials of the search, by number."""
        return self.result.trials

    @property
    def originals(self) -> list[Trial]:
        """Trials that continue no other trial and repeat none: those that can be compared."""
        return [t for t in self.trials if t.parent is None and not t.is_untrained]

    @property
    def defaults(self) -> float | None:
        """Objective of the defaults; None if no trial with them has finished."""
        first = self.result.defaults
        if first is None or not first.has_finished:
            return None
        value = first.objective(self.metric)
        return value if math.isfinite(value) else None

    @property
    def defaults_number(self) -> int | None:
        """Number of the trial with the defaults; None if there is none."""
        return self.result.defaults.number if self.result.defaults else None

    @property
    def levels(self) -> int:
        """Number of reports of a complete trial."""
        return max((len(self._report_steps(trial)) for trial in self.trials), default=0)

    def level(self, trial: Trial, report: Report) -> int:
        """Return the level of a report; of a divergence, that of the report it did not reach."""
        steps = self._report_steps(trial)
        return min(bisect_left(steps, report.step) + 1, len(steps))

    def reached(self, trial: Trial) -> int:
        """Return the level of the last report of a trial; 0 if it has none."""
        return self.level(trial, trial.last) if trial.last else 0

    def _report_steps(self, trial: Trial) -> tuple[int, ...]:
        if trial.number not in self._steps:  # the specification computes them each time
            self._steps[trial.number] = tuple(trial.spec.report_steps)
        return self._steps[trial.number]

    # curves ------------------------------------------------------------------------------------

    @cached_property
    def _by_number(self) -> dict[int, Trial]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def curves(self) -> list[Curve]:
        """Curves of the trials that reported, by number."""
        return [self._curve(trial) for trial in self.trials if trial.reports]

    def _curve(self, trial: Trial) -> Curve:
        points = self._finite(trial.reports, trial)
        if trial.parent in self._by_number:
            parent = self._by_number[trial.parent]
            before = [
                p for p in self._finite(parent.reports, parent) if p[0] <= trial.tokens_before
            ]
            points = before[-1:] + points
        diverged = None
        if trial.has_diverged and points:
            diverged = trial.tokens, points[-1][1]
        return Curve(
            trial.number,
            self.reached(trial),
            ending(trial),
            tuple(tokens for tokens, _ in points),
            tuple(value for _, value in points),
            diverged,
        )

    def _finite(self, reports: Sequence[Report], trial: Trial) -> list[tuple[int, float]]:
        pairs = [
            (report.tokens, trial.value(self.metric, report))
            for report in reports
            if report.status is not Status.DIVERGED
        ]
        return [(tokens, value) for tokens, value in pairs if math.isfinite(value)]

    @cached_property
    def best_so_far(self) -> BestSoFar | None:
        """Best value of the finished trials in the order of time; None if there is none.

        Values after a part of the budget are not compared with values after all of it. Without
        recorded times the trials are taken one after another.
        """
        times = self.result.times
        has_times = all(len(trial.times) == len(trial.reports) for trial in self.trials)
        events = []
        for trial in self.trials:
            before = trial.tokens_before
            for index, report in enumerate(trial.reports):
                seconds = times[trial.number][index] if has_times else 0.0
                spent = 0 if trial.reused else report.tokens - before
                before = report.tokens
                events.append((seconds, trial.number, index, spent, trial, report))
        events.sort(key=lambda event: event[:3])  # by time, trial and report
        points: list[tuple[int, float, float, int]] = []
        total, best, end = 0, math.inf, 0.0
        for seconds, number, _, spent, trial, report in events:
            total, end = total + spent, seconds
            value = trial.value(self.metric, report)
            if report.status is not Status.FINISHED or not math.isfinite(value):
                continue
            if self.sign * value < best:
                best = self.sign * value
                points.append((total, seconds, value, number))
        if not points:
            return None
        points.append((total, end, *points[-1][2:]))
        tokens, clock, values, numbers = zip(*points, strict=True)
        return BestSoFar(tokens, clock if has_times and end > 0 else None, values, numbers)

    # rungs -------------------------------------------------------------------------------------

    @cached_property
    def rungs(self) -> list[RungCounts]:
        """Counts of trials at each report of a complete trial."""
        return [self._rung(level) for level in range(1, self.levels + 1)]

    def _rung(self, level: int) -> RungCounts:
        ends = dict.fromkeys(Ending, 0)
        continued = 0
        for trial in self.trials:
            if not trial.reports or self.level(trial, trial.reports[0]) > level:
                continue  # it started above this level
            if self.reached(trial) > level:
                continued += 1
            elif self.reached(trial) == level:
                ends[ending(trial)] += 1
        return RungCounts(
            level, continued + sum(ends.values()), continued, ends[Ending.STOPPED],
            ends[Ending.DIVERGED], ends[Ending.FINISHED], ends[Ending.OTHER],
        )  # fmt: skip

    # several objectives ------------------------------------------------------------------------

    @cached_property
    def fronts(self) -> list[Front]:
        """Fronts of the first objective with each further one; empty for one objective."""
        first, *others = self.result.space.objectives
        on_front = {trial.number for trial in self.result.front} if others else ()
        return [
            Front(
                (first.metric, other.metric),
                tuple(
                    (trial.number, x, y, trial.number in on_front)
                    for trial in self.trials
                    if trial.has_finished
                    and math.isfinite(x := trial.objective(first.metric))
                    and math.isfinite(y := trial.objective(other.metric))
                ),
            )
            for other in others
        ]


# scales ------------------------------------------------------------------------------------------


def better_direction(metric: str) -> str:
    """Return `lower is better` or `higher is better`."""
    return "higher is better" if sign_of(metric) < 0 else "lower is better"


def window(values: Sequence[float], sign: int = 1) -> tuple[float, float] | None:
    """Return the range of an axis of values; bad outliers are outside of it.

    Args:
        values: finite values.
        sign: -1 if large values are good, else 1.

    Returns:
        Lower and upper end, without margin; None if there are no values.
    """
    if not values:
        return None
    ranked = sorted(sign * value for value in values)
    low, high = ranked[0], ranked[-1]
    if len(ranked) >= _FEWEST_FENCED:
        first, _, third = quantiles(ranked, n=4, method="inclusive")
        fence = third + _FENCE * (third - first)
        if third > first:
            high = max(value for value in ranked if value <= fence)
    return (low, high) if sign > 0 else (-high, -low)


def is_wide(low: float, high: float) -> bool:
    """Return whether a range of values needs a log scale."""
    return low > 0 and high > _WIDE * low
