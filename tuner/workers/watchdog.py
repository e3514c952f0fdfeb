"""A watchdog over the workers, without threads: the driver asks it to look about, often.

A worker that dies is noticed and started again by Ray. One that is frozen (SIGSTOP, a suspended
virtual machine, a stuck disk or driver) is not: it is killed, so that Ray starts it again and its
trials go on from their last reports.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

_INTERVAL_SECONDS = 1.0  # between an answer and the next question
_START_SECONDS = 600.0  # that a worker may take to start: it imports torch and maps its data


class WorkerEvent(StrEnum):
    """What happened to a worker."""

    LOST = "lost"  # its process died; Ray is starting it again
    FROZEN = "frozen"  # it did not answer any more, and was killed
    BACK = "back"  # it answers again, in a new process: what it was allowed to is forgotten


class WorkerChange(NamedTuple):
    """A worker, by its place in the list, and what happened to it."""

    worker: int
    sign: WorkerEvent


@dataclass
class _WorkerHealth:
    """What is known of one worker."""

    handle: Any
    asked: Any = None  # reference to the answer that is awaited
    since: float = 0.0  # when it was asked, or when it answered last
    pid: int | None = None  # of the process that answered last
    host: str = ""
    is_starting: bool = True


class Watchdog:
    """Asks all workers for signs of life, and kills those that give none.

    Args:
        workers: their handles.
        timeout_seconds: silence after which a worker is taken for frozen.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        timeout_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout, self._clock = timeout_seconds, clock
        self._interval = min(_INTERVAL_SECONDS, timeout_seconds / 4)
        self._patients = [_WorkerHealth(handle, since=-self._interval) for handle in workers]
        self._last_look = clock()

    def check(self) -> list[WorkerChange]:
        """Look at all workers without waiting for any; about ten times a second.

        Returns:
            What has happened since the last time, in the order of the workers.
        """
        now = self._clock()
        # When this process or the whole machine was itself suspended, the workers' silence means
        # nothing.
        slept = now - self._last_look > self._timeout / 2
        self._last_look = now
        signs = []
        for number, patient in enumerate(self._patients):
            if slept and patient.asked is not None:
                patient.since = now
            sign = self._look_at(patient, now)
            if sign is not None:
                signs.append(WorkerChange(number, sign))
        return signs

    def _look_at(self, patient: _WorkerHealth, now: float) -> WorkerEvent | None:
        import ray
        from ray.exceptions import RayActorError

        if patient.asked is None:
            if now - patient.since >= self._interval:
                patient.asked, patient.since = patient.handle.pulse.remote(), now
            return None
        if not ray.wait([patient.asked], timeout=0)[0]:
            limit = max(_START_SECONDS, self._timeout) if patient.is_starting else self._timeout
            return self._kill(patient, now) if now - patient.since > limit else None
        try:
            answer = ray.get(patient.asked)
        except RayActorError:
            sign = None if patient.is_starting else WorkerEvent.LOST
            patient.is_starting = True
        else:
            is_new = patient.pid is not None and answer["pid"] != patient.pid
            sign = WorkerEvent.BACK if is_new else None
            patient.pid, patient.host = answer["pid"], answer["host"]
            patient.is_starting = False
        patient.asked, patient.since = None, now
        return sign

    def _kill(self, patient: _WorkerHealth, now: float) -> WorkerEvent:
        """End a worker's process for certain: a stopped one cannot obey Ray."""
        import ray

        if patient.host == platform.node() and patient.pid and _is_of_ray(patient.pid):
            with contextlib.suppress(OSError):
                os.kill(patient.pid, signal.SIGKILL)
        else:
            ray.kill(patient.handle, no_restart=False)
        patient.asked, patient.since, patient.is_starting = None, now, True
        return WorkerEvent.FROZEN


def _is_of_ray(pid: int) -> bool:
    """Whether a process is a worker of Ray's, where the system can tell."""
    title = Path(f"/proc/{pid}/cmdline")
    if not Path("/proc/self").exists():
        return True
    try:
        return title.read_bytes().startswith(b"ray::")
    except OSError:
        return False
