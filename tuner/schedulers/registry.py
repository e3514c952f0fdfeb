"""Registry of the schedulers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuner.schedulers.asha import asha
from tuner.schedulers.hyperband import Hyperband
from tuner.schedulers.median import MedianStopping
from tuner.schedulers.none import FullBudget
from tuner.schedulers.pb2 import PB2
from tuner.schedulers.pbt import PBT
from tuner.schedulers.scheduler import Scheduler, SchedulerContext
from tuner.space.settings import SchedulerName

SCHEDULERS: Mapping[SchedulerName, Callable[[SchedulerContext], Scheduler]] = {
    "asha": asha,
    "hyperband": Hyperband,
    "bohb": Hyperband,
    "median": MedianStopping,
    "pbt": PBT,
    "pb2": PB2,
    "none": FullBudget,
}
