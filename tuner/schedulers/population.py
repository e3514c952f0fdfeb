"""Population-based training: the worst trials are replaced by copies of the best.

`Population` is the common part of `pbt` and `pb2`: when members are compared, which are copied, and
which trains next. `pbt` and `pb2` differ in the hyperparameters of a copy.

Source: Jaderberg et al. 2017, "Population based training of neural networks" (arXiv:1711.09846),
with truncation selection: a member in the worst quarter is replaced by a copy of one drawn from the
best quarter.

A *member* is one trial of the population, and an *exchange point* a number of tokens at which
members are compared.

Decided here, where the paper is silent:

* Exchange points lie every `perturb_reports` reports. Members are compared by their values at the
  same point, so that all compared values come after equal training.
* A member is judged once for each point, when all training members have reached the point; at the
  latest when the member reaches its next point, or resumes from a pause at this one. So with slots
  in lockstep, the first member to arrive can be replaced, although the others arrive later.
* With more members than slots, members pause at exchange points, and the least trained member
  trains next, among equals first a member that is replaced: the population advances together. A
  member pauses only if another one waits that has not trained more; so with enough slots no member
  pauses.
* A member that diverged or failed is replaced like a member that has lost, and counts in no
  comparison. A copy that diverges or fails before its first exchange point is not replaced: some
  checkpoints only lead to divergence.
* A member that has finished cannot be copied, and neither can a member whose chain of copies has
  the longest length that a specification can describe. Members that are never stopped are never
  judged and never pause, but may be copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from model.spec.trial import LONGEST_CHAIN
from tuner.schedulers.explore import generator
from tuner.schedulers.rungs import RungResults
from tuner.schedulers.scheduler import Branch, Choice, Decision, New, Resume, SchedulerContext
from tuner.space.parameter import Value, symbols
from tuner.space.space import SearchSpace

_QUARTER = 4  # one in 4 members loses, and one in 4 is copied; fewer members have no quarter


class State(Enum):
    """State of a member."""

    TRAINING = auto()
    PAUSED = auto()  # at an exchange point, until it is the least trained member
    VACANT = auto()  # stopped, diverged or failed; a copy will take its place
    GONE = auto()  # finished or replaced


@dataclass
class Member:
    """One trial of the population.

    Attributes:
        number: number of the trial.
        draw: hyperparameters.
        links: length of the chain of copies, this trial included.
        tokens: training tokens at the newest report, or of the checkpoint that was copied.
        point: last exchange point reached by this member or the copied checkpoint; 0 for none.
        value: value at this point.
        due: point at which the member is still to be judged; for a vacant place, the point at which
            the place was lost.
        has_lived: True if this member itself has reached an exchange point.
        state: state of the member.
    """

    number: int
    draw: Mapping[str, Value]
    links: int = 1
    tokens: int = 0
    point: int = 0
    value: float | None = None
    due: int | None = None
    has_lived: bool = False
    state: State = State.TRAINING


@dataclass(frozen=True)
class Stretch:
    """Progress of a member from one exchange point to another.

    Attributes:
        draw: hyperparameters on the stretch.
        since: exchange point at the beginning; 0 for the start of training.
        before: value at the beginning, of the member or of the copied checkpoint; None at the start
            of training.
        point: exchange point at the end.
        value: value at the end.
    """

    draw: Mapping[str, Value]
    since: int
    before: float | None
    point: int
    value: float


class Population(ABC):
    """The scheduler, without the choice of a copy's hyperparameters.

    Args:
        context: facts of the search; `search.trials` is the size of the population.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self.context = context
        self.space = context.space  # newest version
        self.members: dict[int, Member] = {}
        self.stretches: list[Stretch] = []  # in order of their ends
        self._interval = context.report_tokens * context.space.search.perturb_reports
        self._points: dict[
            int, RungResults
        ] = {}  # exchange point → results of those that came there
        self._started = 0  # number of members that are not copies
        self._copies = 0
        self._copied: Member | None = None  # parent of the copy that `add` records next

    @abstractmethod
    def explore(self, parent: Member, copy: int) -> dict[str, Value]:
        """Return the hyperparameters of a copy.

        Args:
            parent: member whose checkpoint is copied.
            copy: number of earlier copies; the key of all randomness.
        """

    # the protocol --------------------------------------------------------------------------

    def choose(self, *, may_start: bool) -> Choice | None:
        """Start a new member; otherwise train the least trained waiting one or its replacement."""
        if may_start:
            return New()
        waiting = [m for m in self.members.values() if m.state in {State.PAUSED, State.VACANT}]
        # losing members first, while the members that they would copy are still at this point
        lost = {m.number for m in waiting if m.state is State.VACANT or self._loses(m, m.due)}
        for member in sorted(waiting, key=lambda m: (m.tokens, m.number not in lost, m.number)):
            if member.number in lost:
                parents = self._parents(member, member.due)
                if parents:
                    return self._copy(member, parents)
            if member.state is State.PAUSED:
                member.state, member.due = State.TRAINING, None
                return Resume(member.number)
        return None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record a new member, or the copy that `choose` returned."""
        parent, self._copied = self._copied, None
        if parent is None:
            self._started += 1
            self.members[number] = Member(number, draw)
        else:
            self.members[number] = Member(
                number, draw, parent.links + 1, parent.tokens, parent.point, parent.value
            )

    def edit(self, space: SearchSpace) -> None:
        """Draw later copies from the new ranges."""
        self.space = space

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Judge a member if its judgement is due; pause it if it is ahead of a waiting member."""
        member = self.members[number]
        overdue = member.due
        came = self._record(member, tokens, value)
        if number in self.context.never_stopped:
            return Decision.CONTINUE
        lost = overdue if came and self._loses(member, overdue) else None
        if member.due is not None and self._all_came(member.due):
            lost = member.due if self._loses(member, member.due) else lost
            member.due = None
        if self._parents(member, lost):
            member.state, member.due = State.VACANT, lost
            return Decision.STOP
        if came and self._others_wait(member):
            member.state = State.PAUSED
            return Decision.PAUSE
        return Decision.CONTINUE

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the end of a member; the place of one that diverged or failed becomes vacant."""
        member = self.members[number]
        if member.state in {State.VACANT, State.GONE}:  # stopped or replaced earlier
            return
        if value is not None:
            self._record(member, tokens, value)
            member.state = State.GONE
            return
        for results in self._points.values():
            results.remove(number)
        may_be_replaced = member.links == 1 or member.has_lived
        member.state = State.VACANT if may_be_replaced else State.GONE
        member.due = max(1, member.point)

    # exchange points -----------------------------------------------------------------------

    def _record(self, member: Member, tokens: int, value: float) -> bool:
        """Record a report; return True if it reaches a new exchange point.

        If a report passes several points at once, the last point counts.
        """
        member.tokens = tokens
        point = tokens // self._interval
        if point <= member.point:
            return False
        since, before = member.point, member.value
        member.point, member.value, member.due, member.has_lived = point, value, point, True
        self._points.setdefault(point, RungResults()).record(member.number, value)
        self.stretches.append(Stretch(member.draw, since, before, point, value))
        return True

    def values_at(self, point: int) -> list[float]:
        """Return the values at an exchange point, without members that diverged or failed."""
        return self._points.get(point, RungResults()).values

    def is_alive(self, number: int) -> bool:
        """Return True if a member is training or paused."""
        return self.members[number].state in {State.TRAINING, State.PAUSED}

    def _all_came(self, point: int) -> bool:
        """Return True if all members have started, and all alive ones have reached a point."""
        return self._started >= self.context.space.search.trials and all(
            m.point >= point for m in self.members.values() if self.is_alive(m.number)
        )

    def _others_wait(self, member: Member) -> bool:
        """Return True if a member with no more tokens waits for a slot or is not started."""
        return self._started < self.context.space.search.trials or any(
            m.tokens <= member.tokens
            and (
                m.state is State.PAUSED
                or (m.state is State.VACANT and bool(self._parents(m, m.due)))
            )
            for m in self.members.values()
        )

    # exploiting ----------------------------------------------------------------------------

    def _loses(self, member: Member, point: int | None) -> bool:
        """Return True if a member is in the worst quarter of the members at a point."""
        if point is None:
            return False
        results = self._points[point]
        return results.rank(member.number) >= len(results) - len(results) // _QUARTER

    def _parents(self, member: Member, point: int | None) -> list[Member]:
        """Return the members whose copy may replace a member: the best quarter at a point.

        If none of the best quarter is alive, the best alive member. Never a member that is worse
        than the replaced one, and no member before the point has enough results to compare.
        """
        if point is None:
            return []
        ranking = self._points.get(point, RungResults()).ranking
        alive = sum(self.is_alive(number) for number in self.members)
        if len(ranking) < min(_QUARTER, alive):
            return []
        best = ranking[: max(1, len(ranking) // _QUARTER)]
        if member.number in ranking:
            ranking = ranking[: ranking.index(member.number)]
        candidates = [n for n in ranking if self.is_alive(n) and self._can_be_copied(n)]
        chosen = [number for number in candidates if number in best] or candidates[:1]
        return [self.members[number] for number in chosen]

    def _can_be_copied(self, number: int) -> bool:
        """Return True if a specification can still describe the chain of a copy."""
        return self.members[number].links < LONGEST_CHAIN

    def _copy(self, member: Member, parents: list[Member]) -> Branch:
        """Replace a member by a copy of one of some parents."""
        seed = self.space.search.seed
        choice = int(generator(seed, self._copies, 0).integers(len(parents)))
        parent = self._copied = parents[choice]
        draw = self.explore(parent, self._copies)
        self._copies += 1
        member.state = State.GONE
        return Branch(parent.number, draw, member.number)


def exchanges(space: SearchSpace) -> str:
    """Return `every 2 reports the worst trials copy the best ones and change α_max and λ`."""
    reports = space.search.perturb_reports
    every = f"every {reports} reports" if reports > 1 else "at every report"
    return f"{every} the worst trials copy the best ones and change {symbols(space.explored)}"


def mistakes(space: SearchSpace, name: str) -> Iterator[tuple[str, str]]:
    """Yield what a population lacks: enough members, exchange points, or changeable parameters."""
    search, reports = space.search, space.budget.reports
    if search.trials < _QUARTER:
        message = f"search.trials, the size of the population, must be at least {_QUARTER}"
        yield "trials", f"{message} with {name}, got {search.trials}"
    if search.perturb_reports >= reports:
        message = f"search.perturb_reports must be below budget.reports, {reports}, otherwise"
        yield (
            "perturb_reports",
            f"{message} {name} never copies a trial, got {search.perturb_reports}",
        )
    if not space.explored:
        message = f"search.scheduler: {name} has no parameter that it can change during training"
        fix = "search a hyperparameter such as α_max or λ, not only B, sizes or optimizers"
        yield "scheduler", f"{message}; {fix}"
