"""The arms of a comparison: a sampler and a scheduler for each, as if each were a search alone.

`Arms` has the methods of both, so that the conductor asks it as it asks the sampler and scheduler
of any other search. What an arm decides depends on its own trials only; the other arms decide when
its turn comes. The sampler of an arm knows its trials by their numbers within the arm, so that an
arm is suggested what a search of its space alone is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuner.samplers.arms import Arm, arms_of, space_of
from tuner.samplers.observation import Observation
from tuner.samplers.sampler import Belief, Sampler
from tuner.schedulers.registry import SCHEDULERS
from tuner.schedulers.scheduler import Choice, Decision, New, Scheduler, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.proposals import Proposals
from tuner.space.space import SearchSpace


@dataclass
class _ArmState:
    """An arm with its sampler and scheduler.

    Attributes:
        arm: value of the compared parameter.
        sampler: suggests its trials.
        scheduler: decides how far they train.
        most: number of trials that it may start.
        started: number of trials that it has started.
        turns: number of jobs that it has begun.
        tokens: training tokens of its trials, up to their newest reports.
    """

    arm: Arm
    sampler: Sampler
    scheduler: Scheduler
    most: int
    started: int = 0
    turns: int = 0
    tokens: int = 0


class Arms:
    """Sampler and scheduler of a search with `compare:`.

    The next turn is that of the arm that has trained the fewest tokens; of equal ones, that of the
    arm with the fewest turns, so that the first trials are those of each arm, and its defaults.

    Args:
        context: facts of the search.
    """

    def __init__(self, context: SchedulerContext) -> None:
        self._lengths = context.report_tokens, context.budget_tokens
        arms = arms_of(context.space)
        self._arms: list[_ArmState] = []
        for number, arm in enumerate(arms):
            space = space_of(context.space, arm, len(arms))
            first = frozenset({number} if context.never_stopped else ())
            own = replace(context, space=space, never_stopped=first)
            scheduler = SCHEDULERS[space.search.scheduler].make(own)
            sampler = Sampler(space, *self._lengths)
            self._arms.append(_ArmState(arm, sampler, scheduler, space.search.trials))
        self._chosen: _ArmState | None = None  # starts the trial that is suggested next
        # trial as the sampler knows it → its arm, and its number within the arm
        self._members: dict[int, tuple[_ArmState, int]] = {}
        self._arm_of: dict[int, _ArmState] = {}  # trial as the scheduler knows it → its arm
        self._tokens: dict[int, int] = {}  # of each trial, up to its newest report

    def edit(self, space: SearchSpace) -> None:
        """Replace the ranges and choices, and the number of trials; samplers begin anew."""
        for state in self._arms:
            own = space_of(space, state.arm, len(self._arms))
            state.scheduler.edit(own)
            state.sampler, state.most = Sampler(own, *self._lengths), own.search.trials

    # of a sampler ------------------------------------------------------------------------------

    @property
    def num_configurations(self) -> None:
        """None: no arm has a sampler whose configurations are counted."""

    def suggest(self, number: int, belief: Belief) -> dict[str, Value]:
        """Return the draw of a new trial of the arm that was chosen last; arms have no sources."""
        assert self._chosen is not None
        state, key = self._join(number, self._chosen)
        return state.sampler.suggest(key)

    def restore(
        self, number: int, draw: Mapping[str, Value], belief: Belief = Belief.SOURCES
    ) -> None:
        """Record a draw that was suggested earlier.

        Raises:
            ValueError: if the draw is of another arm than the one whose turn it is.
        """
        if number not in self._members:
            assert self._chosen is not None
            if not self._chosen.arm.has(draw):
                raise ValueError(f"trial {number} is not of the arm {self._chosen.arm.text}")
            self._join(number, self._chosen)
        state, key = self._members[number]
        state.sampler.restore(key, draw)

    def _join(self, number: int, state: _ArmState) -> tuple[_ArmState, int]:
        self._members[number] = state, state.started
        state.started += 1
        return self._members[number]

    def observe(self, number: int, observation: Observation) -> None:
        """Record that a trial has ended or is paused."""
        state, key = self._members[number]
        state.sampler.observe(key, observation)

    # of a scheduler ----------------------------------------------------------------------------

    def choose(self, *, may_start: bool) -> Choice | None:
        """Return what a free slot trains next, of the first arm in turn that has something."""
        for state in sorted(self._arms, key=lambda each: (each.tokens, each.turns)):
            is_left = may_start and state.started < state.most
            choice = state.scheduler.choose(may_start=is_left)
            if choice is not None:
                state.turns += 1
                if isinstance(choice, New):
                    self._chosen = state
                return choice
        return None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record the trial of a `New`."""
        assert self._chosen is not None
        self._arm_of[number] = self._chosen
        self._chosen.scheduler.add(number, draw)

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Let the trial's arm decide about it."""
        return self._spent(number, tokens).scheduler.judge(number, tokens, value)

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Tell the trial's arm that it has ended."""
        self._spent(number, tokens).scheduler.end(number, tokens, value)

    def _spent(self, number: int, tokens: int) -> _ArmState:
        """Count the tokens of a trial; return its arm."""
        state = self._arm_of[number]
        state.tokens += max(0, tokens - self._tokens.get(number, 0))
        self._tokens[number] = max(tokens, self._tokens.get(number, 0))
        return state


def deciders(context: SchedulerContext, proposals: Proposals) -> tuple[Sampler | Arms, Scheduler]:
    """Return the sampler and the scheduler of a search; with `compare:` the arms are both.

    Args:
        context: facts of the search.
        proposals: what a search without arms has learned.
    """
    space = context.space
    if space.compare is not None:
        arms = Arms(context)
        return arms, arms
    sampler = Sampler(space, context.report_tokens, context.budget_tokens, proposals)
    return sampler, SCHEDULERS[space.search.scheduler].make(context)
