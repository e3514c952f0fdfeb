"""Scheduler `median`: stops trials whose best value is worse than the median of the others.

Source: Golovin et al. 2017, "Google Vizier: a service for black-box optimization", section 3.2.2
(doi:10.1145/3097983.3098043). After a report at some number of tokens, a trial is stopped if its
best value so far is worse than the median of the running averages of the other trials, each taken
over its reports up to the same tokens.

Decided here, where the paper is silent:

* The other trials are all trials that have trained as far, whether they still train, have finished
  or were stopped. Vizier takes only ended trials; in a search of 24 trials on 8 slots hardly any
  trial has ended when most decisions are due. "As far" is counted in whole reports, because trials
  with other batch sizes report a few tokens earlier or later.
* The first report stops no trial: the first value equals the average, so half of all trials would
  be stopped. A trial is compared with at least three others (as in Ray Tune).
* A trial that is as good as the median continues.
* Trials that diverged or failed leave the comparison; trials that are never stopped stay in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.rungs import RungResults
from tuner.schedulers.scheduler import Choice, Decision, New, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

_GRACE_REPORTS = 1  # first reports of a trial that cannot stop it
_FEWEST_OTHERS = 3  # fewest trials that a trial is compared with
# Share of the trials that is stopped, and the share of their budget that they use. Guesses: the
# true shares depend on how much the curves cross.
_STOPS = 0.5
_STOPS_AFTER = 1 / 3


@dataclass
class _Progress:
    """Reports of a trial so far: their number, place, average and best value."""

    reports: int = 0
    place: int = 0  # tokens of the last report, in whole reports
    average: float = 0.0
    best: float = float("inf")


class MedianStopping:
    """Starts trials, and stops those that are worse than the median.

    Args:
        context: facts of the search.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self._report_tokens = context.report_tokens
        self._never_stopped = context.never_stopped
        self._curves: dict[int, _Progress] = {}  # trials that have not ended
        self._averages: dict[
            int, RungResults
        ] = {}  # place → running averages of all that came there

    def choose(self, *, may_start: bool) -> Choice | None:
        """Start a new trial, if one is left."""
        return New() if may_start else None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record a new trial."""
        self._curves[number] = _Progress()

    def edit(self, space: SearchSpace) -> None:
        """Ignore the edit: no decision depends on ranges or choices."""

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Stop a trial whose best value is worse than the median of the others' averages."""
        curve = self._record(number, tokens, value)
        if number in self._never_stopped or curve.place <= _GRACE_REPORTS:
            return Decision.CONTINUE
        averages = self._averages[curve.place]
        if len(averages) - 1 < _FEWEST_OTHERS or curve.best <= averages.median(without=number):
            return Decision.CONTINUE
        del self._curves[number]
        return Decision.STOP

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the last value; remove a trial without a value from the comparison."""
        if number not in self._curves:  # stopped earlier
            return
        if value is not None:
            self._record(number, tokens, value)
        else:
            for averages in self._averages.values():
                averages.remove(number)
        del self._curves[number]

    def _record(self, number: int, tokens: int, value: float) -> _Progress:
        """Add a report to the progress of a trial, also at the places passed since the last one."""
        curve, place = self._curves[number], tokens // self._report_tokens
        for passed in range(curve.place + 1, place):
            if curve.reports:  # otherwise the trial has no average yet
                self._rung(passed).record(number, curve.average)
        curve.average = (curve.average * curve.reports + value) / (curve.reports + 1)
        curve.reports += 1
        curve.best = min(curve.best, value)
        if place > curve.place:  # the last report of a trial may have the place of the one before
            self._rung(place).record(number, curve.average)
            curve.place = place
        return curve

    def _rung(self, place: int) -> RungResults:
        return self._averages.setdefault(place, RungResults())


KIND = SchedulerKind(
    make=MedianStopping,
    says=lambda space: (
        "a trial stops if its best value is worse than the median of the averages of the others"
    ),
    expected_share=lambda space, trials, report, budget: trials * (1 - _STOPS * (1 - _STOPS_AFTER)),
)
