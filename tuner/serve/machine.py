"""The devices that searches share, and the processes that train on them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuner.errors import TunerError
from tuner.workers.devices import num_cores, num_nvidia_gpus

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LOAD_SECONDS = 1.0  # shorter spans say little of a load


@dataclass(frozen=True)
class Load:
    """The load of this machine.

    Attributes:
        cores: load of each core, in percent.
        memory: used memory, in bytes.
        all_memory: memory of the machine, in bytes.
        disk: used part of the disk of the home, in bytes.
        all_disk: size of this disk, in bytes.
        waiting: number of processes that ran or waited for a core in the last minute.
    """

    cores: tuple[float, ...]
    memory: int
    all_memory: int
    disk: int
    all_disk: int
    waiting: float


class LoadMeter:
    """Measures the load since it was last asked, but not of less than a second.

    Args:
        folder: folder of the home, whose disk counts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._cores = tuple(psutil.cpu_percent(percpu=True))
        self._asked = time.monotonic()

    def read(self) -> Load:
        """Return the load."""
        with self._lock:
            if time.monotonic() - self._asked > _LOAD_SECONDS:
                self._cores = tuple(psutil.cpu_percent(percpu=True))
                self._asked = time.monotonic()
        memory, disk, waiting = psutil.virtual_memory(), (0, 0), 0.0
        with suppress(OSError):
            usage = psutil.disk_usage(str(self._folder))
            disk = usage.used, usage.total
        with suppress(OSError):
            waiting = os.getloadavg()[0]
        used = memory.total - memory.available
        return Load(self._cores, used, memory.total, *disk, waiting)


@dataclass(frozen=True)
class Machine:
    """Devices of this machine or of a Ray cluster, a worker for each.

    Attributes:
        number: number of devices.
        gpus: names of the GPUs, as CUDA knows them; none where the devices are cores.
        address: address of the Ray cluster; None for this machine.
    """

    number: int
    gpus: tuple[str, ...] = ()
    address: str | None = None

    @classmethod
    def found(cls, number: int | None = None, address: str | None = None) -> Machine:
        """Return the devices of this machine or of a cluster.

        Args:
            number: number of devices to use; by default all GPUs, or else all cores.
            address: address of a Ray cluster.

        Raises:
            TunerError: if there are fewer, or nobody says how many the cluster has.
        """
        if address is not None:
            if number is None:
                raise TunerError("give --devices N with --address: how many devices it may use")
            return cls(number, address=address)
        visible = os.environ.get(_VISIBLE)
        gpus = tuple(str(i) for i in range(num_nvidia_gpus()))
        if visible is not None and gpus:
            gpus = tuple(name.strip() for name in visible.split(",") if name.strip())
        most = len(gpus) or num_cores()
        if number is not None and number > most:
            kind = "GPUs" if gpus else "cores"
            raise TunerError(f"--devices {number} is more than the {most} {kind} of this machine")
        return cls(number or most, gpus)

    def arguments(self, numbers: Sequence[int]) -> list[str]:
        """Return the arguments of a driver that gets some devices."""
        address = ["--address", self.address] if self.address else []
        return ["--workers", str(len(numbers)), *address]

    def environment(self, numbers: Sequence[int]) -> Mapping[str, str]:
        """Return variables with which a driver sees only its GPUs."""
        return {_VISIBLE: ",".join(self.gpus[i] for i in numbers)} if self.gpus else {}
