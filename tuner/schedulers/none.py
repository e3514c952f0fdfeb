"""Scheduler `none`: every trial trains to its end."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.schedulers.scheduler import Choice, Decision, New, SchedulerContext
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace


class FullBudget:
    """Starts trials and never interferes.

    Args:
        facts: of the search; nothing depends on them.
    """

    def __init__(self, facts: SchedulerContext) -> None:
        del facts

    def choose(self, *, may_start: bool) -> Choice | None:
        """A new trial as long as there is one."""
        return New() if may_start else None

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Nothing has to be remembered."""

    def edit(self, space: SearchSpace) -> None:
        """Nothing depends on what is drawn."""

    def report(self, number: int, tokens: int, value: float) -> Decision:
        """Every trial goes on."""
        return Decision.GO_ON

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Nothing has to be forgotten."""
