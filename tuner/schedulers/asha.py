"""Scheduler `asha`: asynchronous successive halving, in two forms.

Source: Li et al. 2018, "A system for massively parallel hyperparameter tuning"
(arXiv:1810.05934). Rungs lie at one report, η reports, η² reports, … below the full budget.

* `promote` is the paper's algorithm 2: a trial pauses at a rung, and resumes once it is among the
  best ⌊n/η⌋ of the n trials that have reached the rung. Promotions from the highest rung come
  first, then new trials.
* `stop` is the variant without pauses that Ray Tune and Syne Tune made common, with the rule of
  Syne Tune: a trial continues if it is among the best ⌈n/η⌋ of the trials that have reached the
  rung so far, itself included (value ≤ the 1/η quantile); otherwise it is stopped. No checkpoints
  of paused trials are kept, but each decision uses only the reports so far: all trials continue if
  they arrive in improving order, and about half of eight trials in lockstep.

Decided here, where the paper is silent:

* A trial that may be promoted at its own report continues in its slot at once, even if a promotion
  waits on a higher rung: that promotion takes the next free slot. (As in the paper, trials that
  arrive in improving order are each promoted on arrival, except for the first η−1. A limit of
  ⌊n/η⌋ on the number of trials ever promoted was tried, and found no better trial for the same
  tokens.)
* Trials that diverged or failed are removed from all rungs: they take no place among the best, and
  do not count in n. A place that they leave goes to the next best trial as the rung grows.
* A trial that ended, at the full budget or at a shorter budget of its own, stays on its rungs.
* Trials that are never stopped are ranked like others, and continue whatever their rank.
* The leader of a rung is the best trial there that may be stopped. It continues although ⌊n/η⌋ is 0
  or a trial that is never stopped has the place: in the form `promote` once no new trial is left to
  start, so that slots without work train the leader; in the form `stop` at its report. So the
  search ends with the apparent best trial at the full budget, however few trials it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.rungs import Ladder, RungResults, promotions, share_of_rungs
from tuner.schedulers.scheduler import Choice, Decision, New, Resume, Scheduler, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace


class _Asha:
    """State of both forms: the ladder, and the trials that have not ended."""

    def __init__(self, context: SchedulerContext) -> None:
        self._eta = context.space.search.reduction_factor
        self._never_stopped = context.never_stopped
        self._ladder = Ladder(rungs(context.report_tokens, self._eta, context.budget_tokens))
        self._open: set[int] = set()  # numbers of trials that may report again

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record a new trial."""
        self._open.add(number)

    def edit(self, space: SearchSpace) -> None:
        """Ignore the edit: no decision depends on ranges or choices."""

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the last value on the rung that it reaches; remove a trial without a value."""
        if number not in self._open:  # stopped earlier
            return
        self._open.remove(number)
        self._ladder.unpause(number)
        if value is None:
            self._ladder.remove(number)
        else:
            self._ladder.climb(number, tokens, value)

    def _leads(self, number: int, rung: RungResults) -> bool:
        """Return True if a trial is the leader of a rung."""
        return rung.best(self._never_stopped) == number


class AshaStop(_Asha):
    """Stopping form: stops a trial that is not among the best ⌈n/η⌋ when it reaches a rung.

    Args:
        context: facts of the search.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """Start a new trial, if one is left."""
        return New() if may_start else None

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Stop a trial at a rung unless it is among the best."""
        rung = self._ladder.climb(number, tokens, value)
        if rung is None or number in self._never_stopped:
            return Decision.CONTINUE
        if rung.rank(number) < -(-len(rung) // self._eta) or self._leads(number, rung):
            return Decision.CONTINUE
        self._open.remove(number)
        return Decision.STOP


class AshaPromote(_Asha):
    """Promoting form: pauses trials at rungs until they are among the best ⌊n/η⌋.

    Args:
        context: facts of the search.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """Resume a trial from the highest rung with a promotion; otherwise start a new trial.

        If no new trial is left, resume the leader of the highest rung whose leader is paused.
        """
        for rung in reversed(self._ladder.rungs):
            number = rung.best_paused
            if number is not None and rung.rank(number) < len(rung) // self._eta:
                rung.unpause(number)
                return Resume(number)
        if may_start:
            return New()
        for rung in reversed(self._ladder.rungs):
            number = rung.best_paused
            if number is not None and self._leads(number, rung):
                rung.unpause(number)
                return Resume(number)
        return None

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Pause a trial at a rung, unless it is promoted at once."""
        rung = self._ladder.climb(number, tokens, value)
        if rung is None or number in self._never_stopped:
            return Decision.CONTINUE
        if rung.rank(number) < len(rung) // self._eta:
            return Decision.CONTINUE
        rung.pause(number)
        return Decision.PAUSE


def _asha(context: SchedulerContext) -> Scheduler:
    """Return the form that `search.asha` of the space names."""
    return AshaPromote(context) if context.space.search.asha == "promote" else AshaStop(context)


def _says(space: SearchSpace) -> str:
    is_paused = space.search.asha == "promote"
    others = "paused until they are among the best" if is_paused else "stopped"
    return f"{promotions(space)}, the others are {others}"


def _expected_share(space: SearchSpace, trials: int, report: int, budget: int) -> float:
    """Return the expected tokens: a share 1/η of the trials continues at each rung.

    The stopping form continues more trials, because it compares each trial with earlier ones only:
    the n-th trial continues if it is one of the best ⌈n/η⌋, which has probability ⌈n/η⌋/n in random
    order.
    """
    eta = space.search.reduction_factor

    def continuing(count: float) -> float:
        if space.search.asha == "promote":
            return count / eta
        return sum(-(-n // eta) / n for n in range(1, round(count) + 1))

    return share_of_rungs(rungs(report, eta, budget), budget, trials, continuing)


KIND = SchedulerKind(
    make=_asha,
    says=_says,
    expected_share=_expected_share,
    pauses=lambda space: space.search.asha == "promote",
)
