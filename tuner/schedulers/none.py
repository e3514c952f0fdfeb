"""Scheduler `none`: every trial trains to the end of its budget."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.scheduler import Choice, Decision, New, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace


class FullBudget:
    """Starts trials and never stops them.

    Args:
        context: not used.
    """

    def __init__(self, context: SchedulerContext) -> None:
        del context

    def choose(self, *, may_start: bool) -> Choice | None:
        """Start a new trial, if one is left."""
        return New() if may_start else None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Ignore the trial: there is no state."""

    def edit(self, space: SearchSpace) -> None:
        """Ignore the edit: there is no state."""

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Continue every trial."""
        return Decision.CONTINUE

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Ignore the end: there is no state."""


KIND = SchedulerKind(
    make=FullBudget,
    says=lambda space: f"each trial trains to its end{space.budget.shorter_text}",
    compares=False,
)
