"""What a scheduler is: it decides how far each trial trains, and nothing else.

A scheduler is a state machine without clock, files or Ray: the same calls in the same order give
the same answers, so that a search resumes by repeating the calls of its journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tuner.space.parameter import Value
from tuner.space.space import SearchSpace


class Decision(StrEnum):
    """What becomes of a trial after a report."""

    GO_ON = "go on"
    PARK = "park"  # its slot is free for another; its state is kept, and it may come back
    STOP = "stop"  # for ever


@dataclass(frozen=True)
class New:
    """Train a new trial."""


@dataclass(frozen=True)
class Resume:
    """Go on with a parked trial."""

    number: int


@dataclass(frozen=True)
class Branch:
    """Train a new trial that goes on from the state of another at its newest report.

    Attributes:
        parent: whose state is copied.
        draw: the hyperparameters from there on, complete.
        replaces: the trial whose place it takes: it was stopped, it diverged or failed, or it is
            parked and will never be brought back.
    """

    parent: int
    draw: Mapping[str, Value]
    replaces: int


Choice = New | Resume | Branch


@dataclass(frozen=True)
class SchedulerContext:
    """What a scheduler must know of its search.

    Attributes:
        space: what may vary, and the settings of `search:`.
        report_tokens: training tokens between reports; the lowest rung.
        budget_tokens: training tokens of a complete trial.
        never_stopped: trials that train to the end whatever happens. They take part in every
            comparison.
        train_size: tokens of the training text, or its pairs (`CorpusFacts.train_size`); the rules
            between rows depend on it where N_epoch is searched.
    """

    space: SearchSpace
    report_tokens: int
    budget_tokens: int
    never_stopped: frozenset[int] = frozenset({0})
    train_size: int = 10**9


class Scheduler(Protocol):
    """Values are finite and smaller ones are better; of equal ones the earlier report wins.

    A call of `choose` that returns None changes nothing: whoever repeats the calls may leave it
    out, or make it more often.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """What a free slot trains next. The choice is made: it will be done.

        Args:
            may_start: whether new trials are left to start; a `Branch` does not count as new.

        Returns:
            None if there is nothing to train before another report or end.
        """

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """The trial of a `New` or `Branch` has this number; called right after `choose`."""

    def edit(self, space: SearchSpace) -> None:
        """From here on the ranges and choices of the space are these; its settings are the same."""

    def report(self, number: int, tokens: int, value: float) -> Decision:
        """A trial that is not at its end reports."""

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """A trial will not report again: it has finished, or (None) diverged or failed.

        It may be one that is parked. For one that was told to stop, this has no effect.
        """
