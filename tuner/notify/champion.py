"""Follows a journal and notes each finished trial that is better than all before."""

from __future__ import annotations

import math
from typing import NamedTuple

from tuner.conductor.trial import Trial
from tuner.journal.events import Event, Reported, SearchBegun, TrialBegun
from tuner.space.objective import Objective


class Champion(NamedTuple):
    """A finished trial that is better than all before.

    Attributes:
        number: number of the trial.
        metric: name of the objective.
        value: its value.
        before: value of the champion before; None for the first.
    """

    number: int
    metric: str
    value: float
    before: float | None


class Champions:
    """Finds the champions of a search with one objective, event by event.

    Trials that confirm another one, and cool-downs to shorter budgets, do not compete.
    """

    def __init__(self) -> None:
        self._objective: Objective | None = None
        self._trials: dict[int, Trial] = {}  # that compete, and have not finished
        self._best: Champion | None = None

    def take(self, event: Event) -> Champion | None:
        """Take an event; return the champion that it makes, if it makes one."""
        if isinstance(event, SearchBegun) and len(event.space.objectives) == 1:
            self._objective = event.space.objective
        elif isinstance(event, TrialBegun) and event.confirms is None:
            trial = Trial(event.number, event.spec, event.draw, parent=event.parent)
            if not trial.is_cool_down:
                self._trials[event.number] = trial
        elif isinstance(event, Reported) and event.number in self._trials and self._objective:
            return self._reported(self._trials[event.number], event, self._objective)
        return None

    def _reported(self, trial: Trial, event: Reported, objective: Objective) -> Champion | None:
        trial.reports[:] = [event.report]  # only the last one counts
        if not trial.has_finished:
            return None
        del self._trials[trial.number]
        value, best = trial.objective(objective.metric), self._best
        if not math.isfinite(value):
            return None
        if best is not None and objective.sign * value >= objective.sign * best.value:
            return None
        before = None if best is None else best.value
        self._best = Champion(trial.number, objective.metric, value, before)
        return self._best
