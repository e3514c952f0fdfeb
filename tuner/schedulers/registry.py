"""Registry of the schedulers: the module with the name of each has its `KIND`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import get_args

from tuner.schedulers.kind import SchedulerKind
from tuner.space.settings import SchedulerName

SCHEDULERS: Mapping[SchedulerName, SchedulerKind] = {
    name: import_module(f"tuner.schedulers.{name}").KIND for name in get_args(SchedulerName)
}
