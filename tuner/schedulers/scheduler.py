"""Protocol of the schedulers, which decide how far each trial trains.

A scheduler is a deterministic state machine without clock, files or Ray: the same calls in the same
order give the same answers. A search resumes by repeating the calls that its journal implies.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tuner.space.parameter import Value
from tuner.space.space import SearchSpace


class Decision(StrEnum):
    """Decision about a trial after a report."""

    CONTINUE = "continue"
    PAUSE = "pause"  # free the slot and keep the checkpoint; the trial may resume later
    STOP = "stop"  # end the trial


@dataclass(frozen=True)
class New:
    """Train a new trial."""


@dataclass(frozen=True)
class Resume:
    """Resume a paused trial."""

    number: int


@dataclass(frozen=True)
class Branch:
    """Train a new trial from the newest checkpoint of another trial.

    Attributes:
        parent: number of the trial whose checkpoint is copied.
        draw: complete draw of the new trial.
        replaces: number of the trial whose place in the population is taken: stopped, diverged or
            failed, or paused and never to be resumed.
    """

    parent: int
    draw: Mapping[str, Value]
    replaces: int


Choice = New | Resume | Branch


@dataclass(frozen=True)
class SchedulerContext:
    """Facts of a search that its scheduler depends on.

    Attributes:
        space: search space, with the settings of `search:`.
        report_tokens: training tokens between reports; the lowest rung. With `budget.flops`, these
            and all other tokens that a scheduler is told are FLOPs.
        budget_tokens: training tokens of a complete trial.
        never_stopped: numbers of the trials that train to the end. They take part in every
            comparison. The set is the caller's, which may add a trial before it begins, and take a
            trial away: from its next report on the trial is paused or stopped like others.
        train_size: tokens of the training text, or number of its pairs (`DataFacts.train_size`).
            Rules between hyperparameters depend on the size where N_epoch is searched.
    """

    space: SearchSpace
    report_tokens: int
    budget_tokens: int
    never_stopped: AbstractSet[int] = frozenset({0})
    train_size: int = 10**9


class Scheduler(Protocol):
    """Decides what each slot trains next and whether a trial continues.

    Values are finite, and smaller is better; of equal values the earlier report ranks first. A call
    of `choose` that returns None changes nothing: a replay may skip or repeat such calls.
    """

    def choose(self, *, may_start: bool) -> Choice | None:
        """Return what a free slot trains next. The caller must carry out the choice.

        Args:
            may_start: True if new trials are left to start; a `Branch` does not count as new.

        Returns:
            None if there is nothing to train before the next report or end of a trial.
        """

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record the trial of a `New` or `Branch`; called right after `choose`."""

    def edit(self, space: SearchSpace) -> None:
        """Replace the ranges and choices of the space; its settings are unchanged."""

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Record a report of a trial that is not at its end, and decide about the trial."""

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the end of a running or paused trial. No effect after `Decision.STOP`.

        Args:
            number: number of the trial.
            tokens: training tokens at the end.
            value: last value of a finished trial; None if the trial diverged or failed.
        """
