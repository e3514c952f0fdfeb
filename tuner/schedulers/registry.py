"""Registry of the schedulers: the module with the name of each has its `KIND`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import get_args

from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.kind import SchedulerKind
from tuner.space.settings import SchedulerName
from tuner.space.space import SearchSpace

SCHEDULERS: Mapping[SchedulerName, SchedulerKind] = {
    name: import_module(f"tuner.schedulers.{name}").KIND for name in get_args(SchedulerName)
}


def no_draws(space: SearchSpace) -> str | None:
    """Return why the trials of a search are no draws with one best value; None if they are."""
    search = space.search
    if space.further_objectives:
        return "with several objectives"
    if space.compare is not None:
        return "of several arms, which compare: tunes alone"
    if SCHEDULERS[search.scheduler].is_population:
        return f"of a population, which {search.scheduler} trains"
    if SAMPLERS[search.sampler].points is not None:
        return f"of a list of points, which {search.sampler} tries"
    return None
