"""Scheduler `median`: a trial is stopped that was never as good as most others were on average.

Source: Golovin et al. 2017, "Google Vizier: a service for black-box optimization", section 3.2.2
(doi:10.1145/3097983.3098043). After a report at some number of tokens, a trial is stopped if its
best value so far is worse than the median of the running averages of the other trials, each taken
over its reports up to the same tokens.

Decided here, where the paper is silent:

* The other trials are those that have come as far, whether they still train, have finished or were
  stopped. Vizier takes only those that have ended; in a search of 24 trials on 8 slots hardly any
  has when most decisions are due. As trials with other batch sizes report a few tokens earlier or
  later, "as far" is counted in whole reports.
* The first report stops no trial: its value and the averages would be the same thing, and half of
  all trials would be stopped there. Nor is a trial compared with fewer than three others (Ray Tune
  asks for as many).
* A trial that is as good as the median goes on.
* Trials that diverged or failed leave the comparison; those that are never stopped are in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.schedulers.rungs import Rung
from tuner.schedulers.scheduler import Choice, Decision, New, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

_GRACE_REPORTS = 1  # reports that stop no trial
_FEWEST_OTHERS = 3  # that a trial is compared with


@dataclass
class _Curve:
    """The reports of a trial so far: how many, up to where, their average and their best value."""

    reports: int = 0
    place: int = 0  # tokens, in whole reports
    average: float = 0.0
    best: float = float("inf")


class MedianStopping:
    """Starts trials, and stops those that are worse than the median.

    Args:
        facts: of the search.
    """

    def __init__(self, facts: SchedulerContext) -> None:
        self._report_tokens = facts.report_tokens
        self._never_stopped = facts.never_stopped
        self._curves: dict[int, _Curve] = {}  # of the trials that have not ended
        self._averages: dict[int, Rung] = {}  # place → running averages of all that came there

    def choose(self, *, may_start: bool) -> Choice | None:
        """A new trial as long as there is one."""
        return New() if may_start else None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """A new trial trains."""
        self._curves[number] = _Curve()

    def edit(self, space: SearchSpace) -> None:
        """Nothing depends on what is drawn."""

    def report(self, number: int, tokens: int, value: float) -> Decision:
        """Compare the trial's best value with the others' averages."""
        curve = self._record(number, tokens, value)
        if number in self._never_stopped or curve.place <= _GRACE_REPORTS:
            return Decision.GO_ON
        averages = self._averages[curve.place]
        if len(averages) - 1 < _FEWEST_OTHERS or curve.best <= averages.median(without=number):
            return Decision.GO_ON
        del self._curves[number]
        return Decision.STOP

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """The last value counts; a trial without one leaves the comparison."""
        if number not in self._curves:  # it was stopped: that is its end
            return
        if value is not None:
            self._record(number, tokens, value)
        else:
            for averages in self._averages.values():
                averages.remove(number)
        del self._curves[number]

    def _record(self, number: int, tokens: int, value: float) -> _Curve:
        """The trial's curve with one more report, also on the places that it has passed."""
        curve, place = self._curves[number], tokens // self._report_tokens
        for passed in range(curve.place + 1, place):
            if curve.reports:  # else it has no average there
                self._rung(passed).record(number, curve.average)
        curve.average = (curve.average * curve.reports + value) / (curve.reports + 1)
        curve.reports += 1
        curve.best = min(curve.best, value)
        if place > curve.place:  # the end may come within the last report
            self._rung(place).record(number, curve.average)
            curve.place = place
        return curve

    def _rung(self, place: int) -> Rung:
        return self._averages.setdefault(place, Rung())
