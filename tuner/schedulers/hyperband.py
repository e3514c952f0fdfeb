"""Scheduler `hyperband`: synchronous successive halving in brackets.

Source: Li et al. 2016, "Hyperband: a novel bandit-based approach to hyperparameter optimization"
(arXiv:1603.06560), algorithm 1. With R reports to the full budget, s_max = ⌊log_η R⌋; bracket s
starts ⌈(s_max + 1)/(s + 1) · η^s⌉ trials, first compares them s rungs below the full budget, and
lets the best ⌊n/η⌋ of n continue at each rung. Brackets s_max, …, 0 repeat until there are no more
trials.

Decided here, where the paper is silent:

* The rungs of all brackets are those of asha: one report, η reports, η² reports, …; the last one
  is the full budget. Where R is a power of η, these are the rungs of the paper.
* A trial at a rung pauses until all other training trials of its bracket have reached the rung.
  Slots do not wait: they resume winners of other brackets, the oldest bracket first, or start a new
  trial, of the next bracket if necessary.
* A trial that diverged or failed counts as the worst: the number of winners is that of the paper, a
  share of the trials that were started.
* A bracket that is not full when the trials have run out halves the trials that it has. At least
  one trial continues. If more trials come later, they begin the next bracket.
* A report that passes several rungs at once counts on each: unlike in asha the report keeps no
  other trial out, because the number of winners is fixed.
* Trials that are never stopped are ranked like others, and continue in addition if they lose. If
  they take all places of a rung, the best other trial continues in addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.rungs import promotions, share_of_rungs
from tuner.schedulers.scheduler import Choice, Decision, New, Resume, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace


@dataclass(frozen=True)
class BracketPlan:
    """Size and rungs of a bracket.

    Attributes:
        size: number of trials that the bracket starts.
        rungs: training tokens at which its trials are halved, below the full budget.
    """

    size: int
    rungs: tuple[int, ...]


def plans(eta: int, report_tokens: int, budget_tokens: int) -> list[BracketPlan]:
    """Return the plans of the brackets s_max, …, 0."""
    num_reports = -(-budget_tokens // report_tokens)  # R
    s_max = len(rungs(1, eta, num_reports + 1)) - 1  # powers of η up to R, without η⁰
    # the full budget takes the place of the rung at η^s_max reports
    halvings = tuple(rungs(report_tokens, eta, budget_tokens)[:s_max])
    return [
        BracketPlan(-(-(s_max + 1) * eta**s // (s + 1)), halvings[s_max - s :])
        for s in range(s_max, -1, -1)
    ]


class Bracket:
    """Trials that are halved together.

    Args:
        plan: size and rungs.
        eta: η, one in η trials continues at each rung.
        never_stopped: numbers of the trials that continue even if they lose.
    """

    def __init__(self, plan: BracketPlan, eta: int, never_stopped: AbstractSet[int]) -> None:
        self._plan = plan
        self._eta = eta
        self._never_stopped = never_stopped
        self._started = 0
        self._rung = 0  # index of the lowest undecided rung
        self._places = 0  # planned number of trials at this rung
        self._rivals: set[int] = set()  # trials at this rung that have not diverged or failed
        self._training: set[int] = set()
        self._paused: set[int] = set()  # rivals that wait for the decision at this rung
        # for each rung: number of a trial → value, number of earlier results
        self._results: list[dict[int, tuple[float, int]]] = [{} for _ in plan.rungs]
        self.is_open = True  # accepts more trials
        self.promoted: list[int] = []  # paused trials that may resume, best first

    @property
    def is_over(self) -> bool:
        """True if all rungs are decided and all winners have resumed."""
        return not self.is_open and self._rung == len(self._plan.rungs) and not self.promoted

    def add(self, number: int) -> None:
        """Add a new trial."""
        self._started += 1
        self._rivals.add(number)
        self._training.add(number)
        if self._started == self._plan.size:
            self._close()

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Record a result, and decide the rung if this was the last awaited result."""
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
        """Record the end of a trial; its last value stays on the rungs that it has reached."""
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
        """Mark a promoted trial as training."""
        self.promoted.remove(number)
        self._training.add(number)

    def close_early(self) -> bool:
        """Close a bracket that is not full, if this lets a paused trial resume.

        Returns:
            True if the bracket was closed.
        """
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
        """Record a result on all rungs that it reaches; return True if one of them is new."""
        is_new = False
        for rung, results in zip(self._plan.rungs, self._results, strict=True):
            if tokens >= rung and number not in results:
                results[number] = (value, len(results))
                is_new = True
        return is_new

    def _is_awaited(self) -> bool:
        """Return True if a training or promoted trial has not reached the current rung yet."""
        results = self._results[self._rung] if self._rung < len(self._results) else {}
        coming = self._rivals & self._training.union(self.promoted)
        return any(number not in results for number in coming)

    def _winners(self, places: int) -> list[int]:
        """Return the rivals that continue from the current rung, best first."""
        if self._rung == len(self._results):
            return []
        results = self._results[self._rung]
        ranking = sorted(self._rivals & results.keys(), key=lambda number: results[number])
        count = _share(places, self._eta)
        winners = ranking[:count]
        if self._never_stopped >= set(winners):
            winners += [n for n in ranking[count:] if n not in self._never_stopped][:1]
        return winners

    def _decide(self) -> None:
        """Decide every rung that all awaited trials have reached."""
        while not self.is_open and self._rung < len(self._results) and not self._is_awaited():
            winners = self._winners(self._places)
            # a report may pass several rungs: its trial already waits at the next one
            upper = self._results[self._rung + 1] if self._rung + 1 < len(self._results) else {}
            resuming = [
                number for number in winners if number in self._paused and number not in upper
            ]
            self.promoted += resuming
            self._paused &= set(winners) - set(resuming)
            self._rivals = set(winners) | (self._rivals & self._never_stopped)
            self._places = _share(self._places, self._eta)
            self._rung += 1


def _share(places: int, eta: int) -> int:
    """Return the number of trials that continue."""
    return max(1, places // eta)


class Hyperband:
    """Starts one bracket after another, and resumes the winners of each.

    Args:
        context: facts of the search.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self._eta = context.space.search.reduction_factor
        self._never_stopped = context.never_stopped
        self._plans = plans(self._eta, context.report_tokens, context.budget_tokens)
        self._begun = 0  # number of brackets begun
        self._brackets: list[Bracket] = []  # brackets that are not over
        self._bracket_of: dict[int, Bracket] = {}  # trials that have not ended

    def choose(self, *, may_start: bool) -> Choice | None:
        """Resume a winner of the oldest bracket with one; otherwise start a new trial."""
        winner = self._winner()
        if winner is None and not may_start:
            # no new trials are left, so brackets that wait for more trials close
            if not any(bracket.close_early() for bracket in self._brackets):
                return None
            winner = self._winner()
        return New() if winner is None else winner

    def _winner(self) -> Resume | None:
        for bracket in self._brackets:
            if bracket.promoted:
                number = bracket.promoted[0]
                bracket.resume(number)
                self._remove_finished_brackets()
                return Resume(number)
        return None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Add a new trial to the open bracket, or begin the next bracket."""
        if not self._brackets or not self._brackets[-1].is_open:
            plan = self._plans[self._begun % len(self._plans)]
            self._begun += 1
            self._brackets.append(Bracket(plan, self._eta, self._never_stopped))
        bracket = self._bracket_of[number] = self._brackets[-1]
        bracket.add(number)

    def edit(self, space: SearchSpace) -> None:
        """Ignore the edit: no decision depends on ranges or choices."""

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Return the decision of the trial's bracket."""
        decision = self._bracket_of[number].judge(number, tokens, value)
        if decision is Decision.STOP:
            del self._bracket_of[number]
        self._remove_finished_brackets()
        return decision

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the end in the trial's bracket; a stopped trial has no bracket."""
        bracket = self._bracket_of.pop(number, None)
        if bracket is not None:
            bracket.end(number, tokens, value)
            self._remove_finished_brackets()

    def _remove_finished_brackets(self) -> None:
        self._brackets = [bracket for bracket in self._brackets if not bracket.is_over]


def _expected_share(space: SearchSpace, trials: int, report: int, budget: int) -> float:
    """Return the expected tokens: brackets repeat until no trials are left."""
    eta = space.search.reduction_factor
    brackets = plans(eta, report, budget)

    def bracket(plan: BracketPlan, size: int) -> float:
        return share_of_rungs(plan.rungs, budget, size, lambda count: max(1, count // eta))

    rounds, rest = divmod(trials, sum(plan.size for plan in brackets))
    spent = rounds * sum(bracket(plan, plan.size) for plan in brackets)
    for plan in brackets:
        last = min(rest, plan.size)
        spent += bracket(plan, last) if last else 0
        rest -= last
    return spent


KIND = SchedulerKind(
    make=Hyperband,
    says=lambda space: f"{promotions(space)}, in brackets that start at different rungs",
    expected_share=_expected_share,
    pauses=lambda space: True,
)
