"""Scheduler `asha`: asynchronous successive halving, in two forms.

Source: Li et al. 2018, "A system for massively parallel hyperparameter tuning"
(arXiv:1810.05934). Rungs lie at one report, η reports, η² reports, … below the full budget.

* `promote` is the paper's algorithm 2: a trial is parked at a rung, and goes on once it is among
  the best ⌊n/η⌋ of the n trials that have come there; promotions from the highest rung go first,
  then new trials.
* `stop` is the variant without parking that Ray Tune and Syne Tune made common; the rule is that
  of Syne Tune: a trial goes on if it is among the best ⌈n/η⌋ of those that have come to the rung
  so far, itself included (value ≤ the 1/η quantile), and is stopped for ever if not. No state has
  to be kept, but it decides with what has come so far: it keeps all trials if they come in
  improving order, and about half of eight that come in lockstep.

Decided here, where the paper is silent:

* A trial that may be promoted at its own report goes on in its slot at once, even if a promotion
  waits on a higher rung: that one takes the next free slot. (As in the paper, trials that come in
  improving order are each promoted as they come, but for the first η−1: a limit of ⌊n/η⌋ on how
  many have ever been promoted was tried, and found no better a trial for the same tokens.)
* Trials that diverged or failed are taken from all rungs: they fill no place of the best, and do
  not make room for others. A place that they leave goes to the next best as the rung grows.
* A trial that ended, at the full budget or at a shorter one of its own, stays on its rungs.
* Trials that are never stopped are ranked like others, and go on whatever their rank.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuner.schedulers.rungs import Ladder
from tuner.schedulers.scheduler import Choice, Decision, New, Resume, Scheduler, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace


def asha(facts: SchedulerContext) -> Scheduler:
    """The form that the space asks for."""
    return AshaPromote(facts) if facts.space.search.asha == "promote" else AshaStop(facts)


class _Asha:
    """What both forms share: the ladder and who is on it."""

    def __init__(self, facts: SchedulerContext) -> None:
        self._eta = facts.space.search.reduction_factor
        self._never_stopped = facts.never_stopped
        self._ladder = Ladder(rungs(facts.report_tokens, self._eta, facts.budget_tokens))
        self._open: set[int] = set()  # trials that may report again

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """A new trial trains."""
        self._open.add(number)

    def edit(self, space: SearchSpace) -> None:
        """Nothing depends on what is drawn."""

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """The trial's last value counts on the rung that it reaches; without one it is removed."""
        if number not in self._open:  # it was stopped: that is its end
            return
        self._open.remove(number)
        self._ladder.unpark(number)
        if value is None:
            self._ladder.remove(number)
        else:
            self._ladder.climb(number, tokens, value)


class AshaStop(_Asha):
    """Stopping form: a trial that is not among the best ⌈n/η⌋ when it comes to a rung is stopped.

    Args:
        facts: of the search.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """A new trial as long as there is one."""
        return New() if may_start else None

    def report(self, number: int, tokens: int, value: float) -> Decision:
        """Judge a trial that has come to a rung."""
        rung = self._ladder.climb(number, tokens, value)
        if rung is None or number in self._never_stopped:
            return Decision.GO_ON
        if rung.rank(number) < -(-len(rung) // self._eta):
            return Decision.GO_ON
        self._open.remove(number)
        return Decision.STOP


class AshaPromote(_Asha):
    """Promoting form: trials are parked at rungs until they are among the best ⌊n/η⌋.

    Args:
        facts: of the search.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """A promotion from the highest rung that has one; else a new trial."""
        for rung in reversed(self._ladder.rungs):
            number = rung.best_parked
            if number is not None and rung.rank(number) < len(rung) // self._eta:
                rung.unpark(number)
                return Resume(number)
        return New() if may_start else None

    def report(self, number: int, tokens: int, value: float) -> Decision:
        """Park a trial that has come to a rung, unless it is promoted at once."""
        rung = self._ladder.climb(number, tokens, value)
        if rung is None or number in self._never_stopped:
            return Decision.GO_ON
        if rung.rank(number) < len(rung) // self._eta:
            return Decision.GO_ON
        rung.park(number)
        return Decision.PARK
