"""The numbers behind the pictures of a search, which page and PNGs draw alike.

The *level* of a report is its number, counted from 1 at the first report of the full budget: a
trial that goes on from another one's state begins above it.
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
from tuner.conductor.outcome import DIVERGED
from tuner.conductor.trial import Trial
from tuner.results.pareto import pareto_front
from tuner.results.result import SearchResult
from tuner.space.objective import sign_of

_FENCE = 3.0  # Tukey's outer one: beyond it a value would flatten the picture of all others
_FEWEST_FENCED = 8  # values, to know what is usual
_WIDE = 5.0  # from the least to the largest value: more is drawn on a log scale


class Ending(StrEnum):
    """How a trial ended, as far as pictures care."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by the scheduler, or by a limit of the search
    DIVERGED = "diverged"
    OTHER = "unfinished"  # it failed, or the search was left before its end


def ending(row: Trial) -> Ending:
    """How a trial ended."""
    if row.has_diverged or row.outcome == DIVERGED:
        return Ending.DIVERGED
    if row.has_finished:
        return Ending.FINISHED
    return Ending.STOPPED if row.is_stopped else Ending.OTHER


@dataclass(frozen=True)
class Curve:
    """What one trial reported.

    Attributes:
        number: of the trial.
        level: of its last report; 0 if there is none.
        ending: how it ended.
        tokens: training tokens, those of a parent included; where it goes on from a parent, the
            first point is the parent's.
        values: the objective there, all finite.
        diverged: where it diverged: tokens, and its last finite value; None if there is none.
    """

    number: int
    level: int
    ending: Ending
    tokens: tuple[int, ...]
    values: tuple[float, ...]
    diverged: tuple[int, float] | None = None


@dataclass(frozen=True)
class BestSoFar:
    """The best value that any trial had shown, each time it improved, and at the end.

    Attributes:
        tokens: that the search had spent on all trials.
        seconds: since it began; None if the record does not have all times.
        values: the best objective so far.
        trials: whose value it is.
    """

    tokens: tuple[int, ...]
    seconds: tuple[float, ...] | None
    values: tuple[float, ...]
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Rung:
    """What became of the trials that came to one report.

    Attributes:
        level: number of the report.
        came: trials that reached it; the sum of the rest.
        went_on: trials that trained further.
        stopped: trials that were stopped here.
        diverged: trials that had been fine until the report before, and diverged on the way here.
        finished: trials whose budget ended here.
        other: trials that failed after it, or were left here.
    """

    level: int
    came: int
    went_on: int
    stopped: int
    diverged: int
    finished: int
    other: int


@dataclass(frozen=True)
class Front:
    """Two of several objectives.

    Attributes:
        metrics: along the horizontal and the vertical axis.
        points: trial, its two values, and whether no other trial is better in every objective.
    """

    metrics: tuple[str, str]
    points: tuple[tuple[int, float, float, bool], ...]


class ReportData:
    """The series of one search; each is computed when it is first asked for.

    Args:
        result: of the search.
    """

    def __init__(self, result: SearchResult) -> None:
        self.result = result
        self.metric = result.metric
        self.mode = result.space.objective.mode
        self.sign = result.space.objective.sign
        self._steps: dict[int, tuple[int, ...]] = {}

    @property
    def trials(self) -> list[Trial]:
        """Those of the search, by number."""
        return self.result.trials

    @property
    def defaults(self) -> float | None:
        """The objective of the first trial, which has the defaults; None if it has none."""
        first = next((row for row in self.trials if row.number == 0), None)
        value = math.inf if first is None else first.objective(self.metric)
        return value if math.isfinite(value) else None

    @property
    def levels(self) -> int:
        """Reports of a complete trial."""
        return max((len(self._report_steps(row)) for row in self.trials), default=0)

    def level(self, row: Trial, report: Report) -> int:
        """Number of a report; where a trial diverged on its way, that of the report it missed."""
        steps = self._report_steps(row)
        return min(bisect_left(steps, report.step) + 1, len(steps))

    def reached(self, row: Trial) -> int:
        """Level of the last report of a trial; 0 if there is none."""
        return self.level(row, row.last) if row.last else 0

    def _report_steps(self, row: Trial) -> tuple[int, ...]:
        if row.number not in self._steps:  # the specification counts them anew each time
            self._steps[row.number] = tuple(row.spec.report_steps)
        return self._steps[row.number]

    # curves ------------------------------------------------------------------------------------

    @cached_property
    def curves(self) -> list[Curve]:
        """One for each trial that reported, by number."""
        return [self._curve(row) for row in self.trials if row.reports]

    def _curve(self, row: Trial) -> Curve:
        points = self._finite(row.reports, row)
        parent = next((r for r in self.trials if r.number == row.parent), None)
        if parent is not None:
            before = [p for p in self._finite(parent.reports, parent) if p[0] <= row.tokens_before]
            points = before[-1:] + points
        diverged = None
        if row.has_diverged and points:
            diverged = row.tokens, points[-1][1]
        return Curve(
            row.number,
            self.reached(row),
            ending(row),
            tuple(tokens for tokens, _ in points),
            tuple(value for _, value in points),
            diverged,
        )

    def _finite(self, reports: Sequence[Report], row: Trial) -> list[tuple[int, float]]:
        pairs = [
            (report.tokens, row.value(self.metric, report))
            for report in reports
            if report.status is not Status.DIVERGED
        ]
        return [(tokens, value) for tokens, value in pairs if math.isfinite(value)]

    @cached_property
    def best_so_far(self) -> BestSoFar | None:
        """Over all reports in the order in which they came; None if no value is finite.

        Without times they are taken trial by trial.
        """
        times = self.result.times
        timed = all(len(row.times) == len(row.reports) for row in self.trials)
        events = []
        for row in self.trials:
            before = row.tokens_before
            for index, report in enumerate(row.reports):
                seconds = times[row.number][index] if timed else 0.0
                spent = 0 if row.reused else report.tokens - before
                before = report.tokens
                events.append((seconds, row.number, index, spent, row, report))
        events.sort(key=lambda event: event[:3])
        points: list[tuple[int, float, float, int]] = []
        total, best, end = 0, math.inf, 0.0
        for seconds, number, _, spent, row, report in events:
            total, end = total + spent, seconds
            value = row.value(self.metric, report)
            is_bad = report.status is Status.DIVERGED or not math.isfinite(value)
            if not is_bad and self.sign * value < best:
                best = self.sign * value
                points.append((total, seconds, value, number))
        if not points:
            return None
        points.append((total, end, *points[-1][2:]))
        tokens, clock, values, numbers = zip(*points, strict=True)
        return BestSoFar(tokens, clock if timed and end > 0 else None, values, numbers)

    # rungs -------------------------------------------------------------------------------------

    @cached_property
    def rungs(self) -> list[Rung]:
        """One for each report of a complete trial."""
        return [self._rung(level) for level in range(1, self.levels + 1)]

    def _rung(self, level: int) -> Rung:
        ends = dict.fromkeys(Ending, 0)
        went_on = 0
        for row in self.trials:
            if not row.reports or self.level(row, row.reports[0]) > level:
                continue  # it began above
            if self.reached(row) > level:
                went_on += 1
            elif self.reached(row) == level:
                ends[ending(row)] += 1
        return Rung(
            level, went_on + sum(ends.values()), went_on, ends[Ending.STOPPED],
            ends[Ending.DIVERGED], ends[Ending.FINISHED], ends[Ending.OTHER],
        )  # fmt: skip

    # several objectives ------------------------------------------------------------------------

    @cached_property
    def fronts(self) -> list[Front]:
        """The first objective with each of the others; empty if there is one."""
        first, *others = self.result.space.objectives
        objectives = {o.metric: o.mode for o in self.result.space.objectives}
        on_front = {row.number for row in pareto_front(self.trials, objectives)} if others else ()
        return [
            Front(
                (first.metric, other.metric),
                tuple(
                    (row.number, x, y, row.number in on_front)
                    for row in self.trials
                    if row.has_finished
                    and math.isfinite(x := row.objective(first.metric))
                    and math.isfinite(y := row.objective(other.metric))
                ),
            )
            for other in others
        ]


# scales ------------------------------------------------------------------------------------------


def good_end(metric: str) -> str:
    """`lower is better`, or `higher is better`."""
    return "higher is better" if sign_of(metric) < 0 else "lower is better"


def window(values: Sequence[float], sign: int = 1) -> tuple[float, float] | None:
    """From where to where a picture of some values goes: bad outliers are left outside.

    Args:
        values: finite.
        sign: -1 if large ones are good.

    Returns:
        The ends without any margin; None if there are no values.
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
    """Whether a range of values asks for a log scale."""
    return low > 0 and high > _WIDE * low
