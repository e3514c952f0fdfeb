"""CPU, memory and GPU load of the workers, logged to MLflow as system metrics.

Each worker measures its own process; the driver polls the workers and logs the answers to the
parent run. MLflow's tab "System metrics" draws:

    system/worker_0/cpu_utilization_percentage   CPU of the process since the last poll; 100: a core
    system/worker_0/memory_megabytes             resident memory of the process
    system/worker_0/gpu_utilization_percentage   GPU of the worker, if it has one
    system/worker_0/gpu_memory_megabytes         memory used on this GPU by all processes

The driver never waits for an answer. Polls become rarer during a long search, so that a week has a
few thousand points instead of a hundred thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psutil

from tuner.tracking.metrics import SYSTEM, SystemMetrics

_FIRST_PERIOD_SECONDS = 5.0
_POLLS_PER_PERIOD = 500  # after so many polls the period doubles
_MEGA = 1e6


class ProcessMeter:
    """Measures the load of its own process and of its GPU, in less than a millisecond.

    Args:
        device: "cpu", "cuda" or "mps".
    """

    def __init__(self, device: str) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first `read` measures from this moment
        self._has_gpu = device == "cuda"

    def read(self) -> dict[str, float]:
        """Return values by name, without those that cannot be measured."""
        values = {}
        with suppress(psutil.Error):
            values["cpu_utilization_percentage"] = self._process.cpu_percent()
            values["memory_megabytes"] = self._process.memory_info().rss / _MEGA
        return values | self._read_gpu()

    def _read_gpu(self) -> dict[str, float]:
        """Measure the first GPU visible to this process, whatever its index on the machine."""
        if not self._has_gpu:
            return {}
        import torch

        values: dict[str, float] = {}
        # NVML may be missing, refuse permission, not know a MIG slice by this index, or fail in
        # the driver. No such failure may end a search.
        with suppress(Exception):
            values["gpu_memory_megabytes"] = torch.cuda.device_memory_used() / _MEGA
        with suppress(Exception):
            values["gpu_utilization_percentage"] = float(torch.cuda.utilization())
        return values


class MetricsPoller:
    """Polls all workers for their load, without waiting for any.

    Args:
        workers: handles of the workers.
        clock: monotonic clock in seconds.
    """

    def __init__(self, workers: Sequence[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._pending: dict[int, Any] = {}  # worker → Ray reference to its answer
        self._next_poll = clock()
        self._num_polls = 0

    @property
    def period_seconds(self) -> float:
        """Seconds between two polls of a worker."""
        return float(_FIRST_PERIOD_SECONDS * 2 ** (self._num_polls // _POLLS_PER_PERIOD))

    def poll(self) -> SystemMetrics | None:
        """Collect the answers that have arrived, and ask again when the period is over.

        A worker that has not answered yet is not asked again.

        Returns:
            The values that arrived since the last call; None if none did.
        """
        values = {}
        for worker in tuple(self._pending):
            for name, value in (self._collect(worker) or {}).items():
                values[f"{SYSTEM}worker_{worker}/{name}"] = value
        if self._clock() >= self._next_poll:
            self._next_poll = self._clock() + self.period_seconds
            self._num_polls += 1
            for worker, handle in enumerate(self._workers):
                if worker not in self._pending:
                    self._pending[worker] = handle.measure_load.remote()
        return SystemMetrics(values, time.time_ns() // 1_000_000) if values else None

    def _collect(self, worker: int) -> dict[str, float] | None:
        """Return the answer of a worker; None if it is not there yet or the worker died."""
        import ray
        from ray.exceptions import RayError

        pending = self._pending[worker]
        if not ray.wait([pending], timeout=0)[0]:
            return None
        del self._pending[worker]
        try:
            values: dict[str, float] = ray.get(pending)
        except RayError:
            return None
        return values
