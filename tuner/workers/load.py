"""How busy the workers are: measured in each of them, asked for by the driver, shown by MLflow.

What a worker measures goes to the parent run, where MLflow's tab "System metrics" draws it:

    system/worker_0/cpu_utilization_percentage   of its process since the time before; 100 is a core
    system/worker_0/memory_megabytes             of its process, resident
    system/worker_0/gpu_utilization_percentage   of its device, where it has one
    system/worker_0/gpu_memory_megabytes         of its device, all processes

Nothing waits for an answer. Questions get rarer as a search gets longer, so that a week of it has a
few thousand points and not a hundred thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psutil

from tuner.tracking.metrics import SYSTEM, SystemMetrics

_PERIOD_SECONDS = 5.0  # at first
_POINTS = 500  # after so many the period doubles
_MEGA = 1e6


class ProcessMeter:
    """Measures the process that it is in, and its GPU; a call takes less than a millisecond.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # from here on
        self._has_gpu = device == "cuda"

    def read(self) -> dict[str, float]:
        """Name → value; what cannot be measured is left out."""
        values = {}
        with suppress(psutil.Error):
            values["cpu_utilization_percentage"] = self._process.cpu_percent()
            values["memory_megabytes"] = self._process.memory_info().rss / _MEGA
        return values | self._gpu()

    def _gpu(self) -> dict[str, float]:
        """Of the device that is this process's first one, whatever number it has on the machine."""
        if not self._has_gpu:
            return {}
        import torch

        values: dict[str, float] = {}
        # no NVML, no permission, a slice of a device that has no such number, a driver that fails:
        # whatever it is, it must not end a search
        with suppress(Exception):
            values["gpu_memory_megabytes"] = torch.cuda.device_memory_used() / _MEGA
        with suppress(Exception):
            values["gpu_utilization_percentage"] = float(torch.cuda.utilization())
        return values


class MetricsPoller:
    """Asks all workers how they are, without waiting for any.

    Args:
        workers: their handles.
        clock: seconds that never go back.
    """

    def __init__(self, workers: Sequence[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._asked: dict[int, Any] = {}  # worker → reference to the answer that is awaited
        self._next = clock()
        self._rounds = 0

    @property
    def period_seconds(self) -> float:
        """Between two questions to a worker."""
        return float(_PERIOD_SECONDS * 2 ** (self._rounds // _POINTS))

    def check(self) -> SystemMetrics | None:
        """Take the answers that have come, and ask again when it is time.

        Returns:
            What was measured since the last time, if anything was.
        """
        values = {}
        for number in tuple(self._asked):
            for name, value in (self._answer(number) or {}).items():
                values[f"{SYSTEM}worker_{number}/{name}"] = value
        if self._clock() >= self._next:
            self._next = self._clock() + self.period_seconds
            self._rounds += 1
            for number, worker in enumerate(self._workers):
                if number not in self._asked:
                    self._asked[number] = worker.vitals.remote()
        return SystemMetrics(values, time.time_ns() // 1_000_000) if values else None

    def _answer(self, number: int) -> dict[str, float] | None:
        """What a worker answered; nothing if it has not yet, or died meanwhile."""
        import ray
        from ray.exceptions import RayError

        asked = self._asked[number]
        if not ray.wait([asked], timeout=0)[0]:
            return None
        del self._asked[number]
        try:
            values: dict[str, float] = ray.get(asked)
        except RayError:
            return None
        return values
