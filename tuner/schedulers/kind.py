"""What a scheduler is to the other rooms: its facts, and how to make it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuner.schedulers.scheduler import Scheduler, SchedulerContext
from tuner.space.settings import SamplerName
from tuner.space.space import SearchSpace


@dataclass(frozen=True)
class SchedulerKind:
    """A scheduler.

    Attributes:
        make: returns a scheduler of a search.
        says: what the scheduler does with the trials of a space, after "Scheduler NAME: ".
        expected_share: training tokens that some trials are expected to take, in units of the
            complete budget, from the space, the number of trials, the distance of reports and the
            budget. By default every trial trains to the end, or is replaced.
        compares: True if unfinished trials are compared, by one objective.
        sampler: the only sampler that the scheduler works with; None for any.
        pauses: whether a new trial pauses at the first rung, so that others are compared with it
            for a share of its budget.
        is_population: True if the trials are a population of constant size, whose members copy
            each other.
        mistakes: settings of `search:` that the scheduler does not allow, as keys and messages.
    """

    make: Callable[[SchedulerContext], Scheduler]
    says: Callable[[SearchSpace], str]
    expected_share: Callable[[SearchSpace, int, int, int], float] = (
        lambda space, trials, report, budget: trials
    )
    compares: bool = True
    sampler: SamplerName | None = None
    pauses: Callable[[SearchSpace], bool] = lambda space: False
    is_population: bool = False
    mistakes: Callable[[SearchSpace, str], Iterable[tuple[str, str]]] = lambda space, name: ()
