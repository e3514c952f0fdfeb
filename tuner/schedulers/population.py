"""A population of trials that train side by side, the worst replaced by copies of the best.

What `pbt` and `pb2` share: when members are compared, who is copied, who trains next. They differ
in how the hyperparameters of a copy are found.

Source: Jaderberg et al. 2017, "Population based training of neural networks" (arXiv:1711.09846),
with truncation selection: a member in the worst quarter is replaced by a copy of one drawn from the
best quarter.

Decided here, where the paper is silent:

* Exchange points lie every `perturb_reports` reports. Members are compared by their values at the
  same point, never by values after more and after less training.
* A member is judged, once for each point, when all members that still train have come to it; at the
  latest when it comes to its next point, or leaves this one after being parked. So with slots in
  lockstep the first to come does not escape only because the others come a moment later.
* With more members than slots, members are parked at exchange points, and the least trained one
  goes next, of equal ones first those that are replaced: the population advances together. A member
  parks only if one that has not trained more waits; so with enough slots nobody ever does.
* A member that diverged or failed is replaced like one that has lost, and counts nowhere. A copy
  that does so before its first exchange point is not replaced: some states only lead astray.
* A member that has finished cannot be copied, nor one whose chain of copies is as long as a
  specification can tell. Members that are never stopped are judged by nobody,
  never park, and may be copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from model.spec.trial import LONGEST_CHAIN
from tuner.schedulers.explore import generator
from tuner.schedulers.rungs import RungResults
from tuner.schedulers.scheduler import Branch, Choice, Decision, New, Resume, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

_QUARTER = 4  # one in so many loses, and as many are copied


class State(Enum):
    """What a member does."""

    TRAINING = auto()
    PAUSED = auto()  # at an exchange point, until it is the least trained one
    VACANT = auto()  # it was stopped, diverged or failed; a copy will take its place
    GONE = auto()  # it has finished or was replaced


@dataclass
class Member:
    """One trial of the population.

    Attributes:
        number: of the trial.
        draw: its hyperparameters.
        links: how many trials its state has come through, itself included.
        tokens: at its newest report, or of the state that it was copied from.
        point: the last exchange point that it, or that state, has come to; 0: none.
        value: there.
        due: the point that it has yet to be judged at; of a vacant place, where that was lost.
        has_lived: whether it has come to an exchange point itself.
        state: what it does.
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
    """What a member made of the way from one exchange point to another.

    Attributes:
        draw: its hyperparameters.
        since: the point where it began; 0: the start of training.
        before: its value there, or that of the state that it was copied from; None at the start.
        point: the point that it came to.
        value: there.
    """

    draw: Mapping[str, Value]
    since: int
    before: float | None
    point: int
    value: float


class Population(ABC):
    """The scheduler, but for exploring.

    Args:
        facts: of the search; the population has as many members as it has trials.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self.context = context
        self.space = context.space  # as last edited
        self.members: dict[int, Member] = {}
        self.stretches: list[Stretch] = []  # in the order in which they ended
        self._interval = context.report_tokens * context.space.search.perturb_reports
        self._points: dict[
            int, RungResults
        ] = {}  # exchange point → results of those that came there
        self._started = 0  # members that are no copies
        self._copies = 0
        self._copied: Member | None = None  # parent of the trial that `add` will tell of

    @abstractmethod
    def explore(self, parent: Member, copy: int) -> dict[str, Value]:
        """The hyperparameters of a copy.

        Args:
            parent: whose state it begins with.
            copy: how many copies were made before; the key of all randomness.
        """

    # the protocol --------------------------------------------------------------------------

    def choose(self, *, may_start: bool) -> Choice | None:
        """A new member; else the least trained of those that wait."""
        if may_start:
            return New()
        waiting = [m for m in self.members.values() if m.state in {State.PAUSED, State.VACANT}]
        # those that lose first, as long as those that they copy are still where they are
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
        """A new member, or the copy that was chosen."""
        parent, self._copied = self._copied, None
        if parent is None:
            self._started += 1
            self.members[number] = Member(number, draw)
        else:
            self.members[number] = Member(
                number, draw, parent.links + 1, parent.tokens, parent.point, parent.value
            )

    def edit(self, space: SearchSpace) -> None:
        """Copies are drawn from the new ranges."""
        self.space = space

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Judge a member if it is time to; park one that is ahead of those that wait."""
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
        """A member has finished; or it diverged or failed, and leaves its place to a copy."""
        member = self.members[number]
        if member.state in {State.VACANT, State.GONE}:  # it was stopped or replaced
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
        """Whether a report has come to an exchange point; of several at once the last counts."""
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
        """The values of all members at an exchange point, but of those that diverged or failed."""
        return self._points.get(point, RungResults()).values

    def is_alive(self, number: int) -> bool:
        """Whether a member trains, or will again."""
        return self.members[number].state in {State.TRAINING, State.PAUSED}

    def _all_came(self, point: int) -> bool:
        """Whether all members that there will be, and that still train, have come to a point."""
        return self._started >= self.context.space.search.trials and all(
            m.point >= point for m in self.members.values() if self.is_alive(m.number)
        )

    def _others_wait(self, member: Member) -> bool:
        """Whether a member that has not trained more waits for a slot, or has yet to be started."""
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
        """Whether a member is in the worst quarter of those that have come to a point."""
        if point is None:
            return False
        results = self._points[point]
        return results.rank(member.number) >= len(results) - len(results) // _QUARTER

    def _parents(self, member: Member, point: int | None) -> list[Member]:
        """Of whom a copy may take a member's place: the best quarter at a point.

        If none of those trains any more, the best that does; none that is worse than the member
        itself, and none before there is something to choose from.
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
        alive_ones = [n for n in ranking if self.is_alive(n) and self._can_be_copied(n)]
        chosen = [number for number in alive_ones if number in best] or alive_ones[:1]
        return [self.members[number] for number in chosen]

    def _can_be_copied(self, number: int) -> bool:
        """Whether a specification can still say where the copy's state comes from."""
        return self.members[number].links < LONGEST_CHAIN

    def _copy(self, member: Member, parents: list[Member]) -> Branch:
        """Give a member's place to a copy."""
        seed = self.space.search.seed
        choice = int(generator(seed, self._copies, 0).integers(len(parents)))
        parent = self._copied = parents[choice]
        draw = self.explore(parent, self._copies)
        self._copies += 1
        member.state = State.GONE
        return Branch(parent.number, draw, member.number)
