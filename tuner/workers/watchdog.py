"""Watches the workers for crashes and hangs, without threads: the driver calls `check` often.

Ray notices a worker that dies and restarts it. Ray does not notice a worker that hangs (SIGSTOP, a
suspended virtual machine, a stuck disk or driver): the watchdog kills such a worker, so that Ray
restarts it and its trials resume from their last reports.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

_PING_SECONDS = 1.0  # between an answer and the next ping
_START_SECONDS = 600.0  # longest start of a worker: it imports torch and maps its data
_RESTART_SECONDS = 600.0  # longest wait for a worker that Ray restarts


class WorkerEvent(StrEnum):
    """Event in the life of a worker."""

    LOST = "lost"  # its process died; Ray is restarting it
    FROZEN = "frozen"  # it did not answer a ping, and the watchdog killed it
    BACK = "back"  # it answers again, in a new process that knows none of the earlier calls
    GONE = "gone"  # it does not come back; the event comes again and again


class WorkerChange(NamedTuple):
    """Event of one worker.

    Attributes:
        worker: index of the worker.
        event: what happened.
        reason: why it was lost, or that it cannot be restarted; empty if there is nothing to say.
    """

    worker: int
    event: WorkerEvent
    reason: str = ""


@dataclass
class _WorkerHealth:
    """State of one worker.

    Attributes:
        handle: handle of the actor.
        ping: Ray reference to the answer to the last ping; None if that answer has come.
        since: time of the unanswered ping, or of the last answer.
        pid: process that answered last.
        host: host name of that process.
        is_starting: True until the current process has answered once.
        lost: time since which Ray restarts it; infinity if it does not.
    """

    handle: Any
    ping: Any = None
    since: float = 0.0
    pid: int | None = None
    host: str = ""
    is_starting: bool = True
    lost: float = math.inf


class Watchdog:
    """Pings all workers and kills those that do not answer.

    Args:
        workers: handles of the workers.
        timeout_seconds: time without an answer after which a worker counts as frozen.
        clock: monotonic clock in seconds.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        timeout_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout, self._clock = timeout_seconds, clock
        self._interval = min(_PING_SECONDS, timeout_seconds / 4)
        # Dated back by one interval, so that the first check pings every worker.
        self._workers = [_WorkerHealth(handle, since=-self._interval) for handle in workers]
        self._last_check = clock()

    def check(self) -> list[WorkerChange]:
        """Check all workers without waiting for any; called about ten times a second.

        Returns:
            Events since the last call, in the order of the workers.
        """
        now = self._clock()
        # If this process or the complete machine was suspended, the missing answers mean nothing:
        # the timeout of every unanswered ping starts again.
        was_suspended = now - self._last_check > self._timeout / 2
        self._last_check = now
        changes = []
        for index, worker in enumerate(self._workers):
            if was_suspended and worker.ping is not None:
                worker.since = now
            found = self._check_worker(worker, now)
            if found is not None:
                changes.append(WorkerChange(index, *found))
        return changes

    def _check_worker(self, worker: _WorkerHealth, now: float) -> tuple[WorkerEvent, str] | None:
        import ray
        from ray.exceptions import ActorDiedError, RayActorError

        if worker.ping is None:
            if now - worker.since >= self._interval:
                worker.ping, worker.since = worker.handle.ping.remote(), now
            return None
        if not ray.wait([worker.ping], timeout=0)[0]:
            limit = max(_START_SECONDS, self._timeout) if worker.is_starting else self._timeout
            return self._kill(worker, now) if now - worker.since > limit else None
        try:
            answer = ray.get(worker.ping)
        except RayActorError as error:
            # Pings also fail while Ray restarts the worker: only the first failure is an event.
            found = None if worker.is_starting else (WorkerEvent.LOST, _in_one_line(error))
            worker.is_starting = True
            worker.lost = min(worker.lost, now)
            if isinstance(error, ActorDiedError):  # Ray does not restart it any more
                found = WorkerEvent.GONE, f"cannot be restarted: {_in_one_line(error)}"
            elif now - worker.lost > _RESTART_SECONDS:
                found = WorkerEvent.GONE, f"did not restart within {_RESTART_SECONDS:.0f} seconds"
        else:
            is_new_process = worker.pid is not None and answer["pid"] != worker.pid
            found = (WorkerEvent.BACK, "") if is_new_process else None
            worker.pid, worker.host = answer["pid"], answer["host"]
            worker.is_starting, worker.lost = False, math.inf
        worker.ping, worker.since = None, now
        return found

    def _kill(self, worker: _WorkerHealth, now: float) -> tuple[WorkerEvent, str]:
        """Kill the process of a worker by SIGKILL: a stopped process cannot obey Ray."""
        import ray

        if worker.host == platform.node() and worker.pid and _is_ray_process(worker.pid):
            with contextlib.suppress(OSError):
                os.kill(worker.pid, signal.SIGKILL)
        else:
            ray.kill(worker.handle, no_restart=False)
        worker.ping, worker.since, worker.is_starting = None, now, True
        worker.lost = min(worker.lost, now)
        return WorkerEvent.FROZEN, f"it did not answer for {self._timeout:.0f} seconds"


def _in_one_line(error: Exception) -> str:
    """Join the first and the last line of Ray's message: the event and its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


def _is_ray_process(pid: int) -> bool:
    """Return True if a process belongs to Ray, or if the system cannot tell.

    The process may have ended since its last answer, and another may have its pid.
    """
    command = Path(f"/proc/{pid}/cmdline")
    if not Path("/proc/self").exists():
        return True
    try:
        return command.read_bytes().startswith(b"ray::")
    except OSError:
        return False
