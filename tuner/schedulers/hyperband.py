"""Schedulers `hyperband` and `bohb`: synchronous successive halving in brackets.

Source: Li et al. 2016, "Hyperband: a novel bandit-based approach to hyperparameter optimization"
(arXiv:1603.06560), algorithm 1. With R reports to the full budget, s_max = ⌊log_η R⌋; bracket s
starts ⌈(s_max + 1)/(s + 1) · η^s⌉ trials, first compares them s rungs below the full budget, and
lets the best ⌊n/η⌋ of n go on at each rung. Brackets s_max, …, 0 follow each other, over and
over, until there are no more trials.

`bohb` (Falkner et al. 2018, arXiv:1807.01774) is this scheduler with a sampler that models the
results of one number of tokens at a time, the largest that enough trials have reached; the sampler
sees to that.

Decided here, where the papers are silent:

* The rungs of all brackets are those of asha: one report, η reports, η² reports, …; the last one
  is the full budget. Where R is a power of η that is what the paper says.
* A trial that has come to a rung waits, parked, until all others of its bracket that still train
  have come there too. Slots do not wait: they train what other brackets can bring back, the oldest
  first, or a new trial, if need be of the next bracket.
* A trial that diverged or failed counts as the worst: the number that goes on is that of the
  paper, a share of those that were started.
* A bracket that is not full when the trials have run out halves what it has. At least one trial
  goes on. Should more trials come later, they begin the next bracket.
* A report that passes several rungs at once counts on each: unlike in asha nobody else is kept out
  by it, as the number that goes on is fixed.
* Trials that are never stopped are ranked like others, and go on in addition if they lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.schedulers.scheduler import Choice, Decision, New, Resume, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace


@dataclass(frozen=True)
class BracketPlan:
    """What a bracket is made of.

    Attributes:
        size: trials that it starts.
        rungs: training tokens at which they are halved, below the full budget.
    """

    size: int
    rungs: tuple[int, ...]


def plans(context: SchedulerContext) -> list[BracketPlan]:
    """The brackets s_max, …, 0."""
    eta = context.space.search.reduction_factor
    num_reports = -(-context.budget_tokens // context.report_tokens)  # R
    s_max = len(rungs(1, eta, num_reports + 1)) - 1  # powers of η up to R, without η⁰
    # the full budget takes the place of the rung at η^s_max reports
    halvings = tuple(rungs(context.report_tokens, eta, context.budget_tokens)[:s_max])
    return [
        BracketPlan(-(-(s_max + 1) * eta**s // (s + 1)), halvings[s_max - s :])
        for s in range(s_max, -1, -1)
    ]


class Bracket:
    """The trials that are halved together.

    Args:
        plan: how many and where.
        eta: one in so many goes on.
        never_stopped: trials that go on even if they lose.
    """

    def __init__(self, plan: BracketPlan, eta: int, never_stopped: frozenset[int]) -> None:
        self._plan = plan
        self._eta = eta
        self._never_stopped = never_stopped
        self._started = 0
        self._rung = 0  # the lowest one that is not decided
        self._places = 0  # trials that this rung was planned for
        self._rivals: set[int] = set()  # the trials at this rung, but for those that diverged
        self._training: set[int] = set()
        self._paused: set[int] = set()  # rivals that wait for the decision
        # for each rung: number → value, and how many came before
        self._results: list[dict[int, tuple[float, int]]] = [{} for _ in plan.rungs]
        self.is_open = True  # for more trials
        self.promoted: list[int] = []  # parked trials that may go on, best first

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to decide or to bring back."""
        return not self.is_open and self._rung == len(self._plan.rungs) and not self.promoted

    def add(self, number: int) -> None:
        """Take a new trial."""
        self._started += 1
        self._rivals.add(number)
        self._training.add(number)
        if self._started == self._plan.size:
            self._close()

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Record a result, and judge the rung if it is the last one there."""
        if not self._record(number, tokens, value):
            return Decision.CONTINUE
        if number in self._never_stopped:
            self._decide()
            return Decision.CONTINUE
        self._training.remove(number)
        self._paused.add(number)
        self._decide()
        if number in self.promoted:
            self.resume(number)
            return Decision.CONTINUE
        return Decision.PAUSE if number in self._paused else Decision.STOP

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """A trial leaves; its last value stays on the rungs that it has come to."""
        self._training.discard(number)
        self._paused.discard(number)
        if number in self.promoted:
            self.promoted.remove(number)
        if value is None:
            self._rivals.discard(number)
        else:
            self._record(number, tokens, value)
        self._decide()

    def resume(self, number: int) -> None:
        """A promoted trial trains again."""
        self.promoted.remove(number)
        self._training.add(number)

    def close_early(self) -> bool:
        """Halve what there is, if that brings a parked trial back; else nothing changes."""
        if (
            not self.is_open
            or self._is_awaited()
            or self._paused.isdisjoint(self._winners(self._started))
        ):
            return False
        self._close()
        return True

    def _close(self) -> None:
        self.is_open = False
        self._places = self._started
        self._decide()

    def _record(self, number: int, tokens: int, value: float) -> bool:
        """Whether the trial has come to a rung where it was not before."""
        is_new = False
        for rung, results in zip(self._plan.rungs, self._results, strict=True):
            if tokens >= rung and number not in results:
                results[number] = (value, len(results))
                is_new = True
        return is_new

    def _is_awaited(self) -> bool:
        """Whether a trial that trains, or may train again, has yet to come to the current rung."""
        results = self._results[self._rung] if self._rung < len(self._results) else {}
        coming = self._rivals & self._training.union(self.promoted)
        return any(number not in results for number in coming)

    def _winners(self, places: int) -> list[int]:
        """The rivals that may go on from the current rung, best first."""
        if self._rung == len(self._results):
            return []
        results = self._results[self._rung]
        ranking = sorted(self._rivals & results.keys(), key=lambda number: results[number])
        return ranking[: _share(places, self._eta)]

    def _decide(self) -> None:
        """Judge every rung to which all have come that were awaited."""
        while not self.is_open and self._rung < len(self._results) and not self._is_awaited():
            winners = self._winners(self._places)
            # a report may pass several rungs: such a trial waits at the next one already
            upper = self._results[self._rung + 1] if self._rung + 1 < len(self._results) else {}
            back = [number for number in winners if number in self._paused and number not in upper]
            self.promoted += back
            self._paused &= set(winners) - set(back)
            self._rivals = set(winners) | (self._rivals & self._never_stopped)
            self._places = _share(self._places, self._eta)
            self._rung += 1


def _share(places: int, eta: int) -> int:
    """How many of so many go on."""
    return max(1, places // eta)


class Hyperband:
    """Starts bracket after bracket, and brings back the winners of each.

    Args:
        facts: of the search.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self._eta = context.space.search.reduction_factor
        self._never_stopped = context.never_stopped
        self._plans = plans(context)
        self._begun = 0  # brackets
        self._brackets: list[Bracket] = []  # those that are not over
        self._bracket_of: dict[int, Bracket] = {}  # of the trials that have not ended

    def choose(self, *, may_start: bool) -> Choice | None:
        """A winner of the oldest bracket that has one; else a new trial."""
        winner = self._winner()
        if winner is None and not may_start:
            # the trials have run out: a bracket that waits for more will wait no longer
            if not any(bracket.close_early() for bracket in self._brackets):
                return None
            winner = self._winner()
        return New() if winner is None else winner

    def _winner(self) -> Resume | None:
        for bracket in self._brackets:
            if bracket.promoted:
                number = bracket.promoted[0]
                bracket.resume(number)
                self._forget_what_is_over()
                return Resume(number)
        return None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """A new trial joins the open bracket, or begins the next one."""
        if not self._brackets or not self._brackets[-1].is_open:
            plan = self._plans[self._begun % len(self._plans)]
            self._begun += 1
            self._brackets.append(Bracket(plan, self._eta, self._never_stopped))
        bracket = self._bracket_of[number] = self._brackets[-1]
        bracket.add(number)

    def edit(self, space: SearchSpace) -> None:
        """Nothing depends on what is drawn."""

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Ask the trial's bracket."""
        decision = self._bracket_of[number].judge(number, tokens, value)
        if decision is Decision.STOP:
            del self._bracket_of[number]
        self._forget_what_is_over()
        return decision

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Tell the trial's bracket; one that was stopped has none any more."""
        bracket = self._bracket_of.pop(number, None)
        if bracket is not None:
            bracket.end(number, tokens, value)
            self._forget_what_is_over()

    def _forget_what_is_over(self) -> None:
        self._brackets = [bracket for bracket in self._brackets if not bracket.is_over]
