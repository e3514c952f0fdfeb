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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tuner.workers.nodes import NodeChecks, live_nodes, lost_nodes

_PING_SECONDS = 1.0  # between an answer and the next ping
_START_SECONDS = 600.0  # longest start of a worker: it imports torch and maps its data
_MISSING_SECONDS = 15.0  # of a restart, before other workers take the trials
_SUSPECT_SECONDS = 120.0  # Ray may take a minute to see that a node is down
_RESTART_SECONDS = 600.0  # longest wait for a worker that Ray restarts on this machine


class WorkerEvent(StrEnum):
    """Event in the life of a worker."""

    UP = "up"  # it answers for the first time
    LOST = "lost"  # its process died; Ray is restarting it
    FROZEN = "frozen"  # it did not answer a ping, and the watchdog killed it
    BACK = "back"  # it answers again, in a new process that knows none of the earlier calls
    # it is not back after a while, because its node was lost, or is back on one that cannot train
    MISSING = "missing"
    GONE = "gone"  # it does not come back; the event comes again and again
    NODE_LOST = "node lost"  # the node on which it was is down; once for each node


class WorkerChange(NamedTuple):
    """Event of one worker.

    Attributes:
        worker: index of the worker.
        event: what happened.
        reason: why it was lost, that it cannot be restarted, or what its node lacks; empty if there
            is nothing to say.
        lost_node: True if it is back because the node that it was on is lost.
        node: id and name of the node that is lost.
    """

    worker: int
    event: WorkerEvent
    reason: str = ""
    lost_node: bool = False
    node: tuple[str, str] = ("", "")


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
        is_missing: True if it was said that it is missing.
        unfit: last process, and its node, that was said to be on a node that cannot train trials.
    """

    handle: Any
    ping: Any = None
    since: float = 0.0
    pid: int | None = None
    host: str = ""
    is_starting: bool = True
    lost: float = math.inf
    is_missing: bool = False
    unfit: tuple[int, str] | None = None


class Watchdog:
    """Pings all workers and kills those that do not answer.

    Args:
        workers: handles of the workers.
        timeout_seconds: time without an answer after which a worker counts as frozen.
        clock: monotonic clock in seconds.
        nodes: checks of nodes that join later; None if all workers are on this machine. With
            checks, it waits for ever for a worker that starts: a cluster may get nodes.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        timeout_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        nodes: NodeChecks | None = None,
    ) -> None:
        self._nodes = nodes
        self._start_seconds = _START_SECONDS if nodes is None else math.inf
        self._restart_seconds = _RESTART_SECONDS if nodes is None else math.inf
        self._timeout, self._clock = timeout_seconds, clock
        self._interval = min(_PING_SECONDS, timeout_seconds / 4)
        # Dated back by one interval, so that the first check pings every worker.
        self._workers = [_WorkerHealth(handle, since=-self._interval) for handle in workers]
        self._last_check = self._last_look = clock()
        self._suspects: dict[str, tuple[float, int]] = {}  # node → when it lost which worker
        self._lost_nodes: set[str] = set()  # that were said to be lost

    @property
    def up(self) -> set[int]:
        """Workers that answered and were not lost since."""
        return {index for index, worker in enumerate(self._workers) if not worker.is_starting}

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
            change = self._check_worker(index, worker, now)
            if change is not None:
                changes.append(change)
        return [*changes, *self._check_nodes(now)]

    def _suspect(self, node_id: str, worker: int, now: float) -> None:
        if node_id and node_id not in self._lost_nodes:
            self._suspects.setdefault(node_id, (now, worker))

    def _check_nodes(self, now: float) -> list[WorkerChange]:
        """Return which nodes that lost a worker are down; Ray knows it a while later."""
        if self._nodes is None or not self._suspects or now - self._last_look < self._interval:
            return []
        self._last_look, lost, changes = now, lost_nodes(), []
        for node_id, (since, worker) in list(self._suspects.items()):
            if node_id in lost:
                self._lost_nodes.add(node_id)
                node = node_id, lost[node_id]
                changes.append(WorkerChange(worker, WorkerEvent.NODE_LOST, node=node))
            if node_id in lost or now - since > _SUSPECT_SECONDS:
                del self._suspects[node_id]
        return changes

    def _check_worker(self, index: int, worker: _WorkerHealth, now: float) -> WorkerChange | None:
        import ray
        from ray.exceptions import RayActorError

        if worker.ping is None:
            if now - worker.since >= self._interval:
                worker.ping, worker.since = worker.handle.ping.remote(), now
            return None
        if not ray.wait([worker.ping], timeout=0)[0]:
            limit = max(self._start_seconds, self._timeout) if worker.is_starting else self._timeout
            if now - worker.since <= limit:
                return None
            self._suspect(worker.host, index, now)
            self._kill(worker, now)
            text = f"it did not answer for {self._timeout:.0f} seconds"
            return WorkerChange(index, WorkerEvent.FROZEN, text)
        try:
            answer = ray.get(worker.ping)
        except RayActorError as error:
            change = self._note_loss(index, worker, error, now)
        else:
            change = self._note_answer(index, worker, answer, now)
        worker.ping, worker.since = None, now
        return change

    def _note_loss(
        self, index: int, worker: _WorkerHealth, error: Exception, now: float
    ) -> WorkerChange | None:
        """Note that a worker has died, or that Ray still restarts it: pings fail meanwhile."""
        from ray.exceptions import ActorDiedError

        text, was_up = _in_one_line(error), not worker.is_starting
        worker.is_starting = True
        worker.lost = min(worker.lost, now)
        if was_up:
            self._suspect(worker.host, index, now)
        # Ray does not restart it any more, unless it died with a node that was drained
        if isinstance(error, ActorDiedError) and not error.preempted:
            return WorkerChange(index, WorkerEvent.GONE, f"cannot be restarted: {text}")
        if was_up:
            return WorkerChange(index, WorkerEvent.LOST, text)
        if now - worker.lost > self._restart_seconds:
            text = f"did not restart within {self._restart_seconds:.0f} seconds"
            return WorkerChange(index, WorkerEvent.GONE, text)
        if now - worker.lost > _MISSING_SECONDS and not worker.is_missing:
            worker.is_missing = True
            return WorkerChange(index, WorkerEvent.MISSING)
        return None

    def _note_answer(
        self, index: int, worker: _WorkerHealth, answer: Mapping[str, Any], now: float
    ) -> WorkerChange | None:
        """Note that a worker is up, perhaps in another process or on another node than before."""
        before, process = (worker.pid, worker.host), (answer["pid"], answer["host"])
        if before == process:
            if worker.lost < now:  # it was out of reach, and may have missed orders
                self._kill(worker, now)
            return None
        if self._nodes is not None:
            lack = self._nodes.lack(answer["host"])
            if lack is None:
                return None  # the next answer tells it again
            if lack:
                was_said, worker.unfit = worker.unfit == process, process
                worker.is_missing = True
                return None if was_said else WorkerChange(index, WorkerEvent.MISSING, lack)
        worker.pid, worker.host = process
        worker.is_starting, worker.is_missing, worker.lost = False, False, math.inf
        if before[0] is None:
            return WorkerChange(index, WorkerEvent.UP)
        if has_moved := before[1] != process[1]:
            self._suspect(before[1], index, now)
        lost_node = has_moved and all(node.id != before[1] for node in live_nodes())
        return WorkerChange(index, WorkerEvent.BACK, lost_node=lost_node)

    def _kill(self, worker: _WorkerHealth, now: float) -> None:
        """Kill the process of a worker by SIGKILL: a stopped process cannot obey Ray."""
        import ray

        if worker.host == node_id() and worker.pid and _is_ray_process(worker.pid):
            with contextlib.suppress(OSError):
                os.kill(worker.pid, signal.SIGKILL)
        else:
            ray.kill(worker.handle, no_restart=False)
        worker.ping, worker.since, worker.is_starting = None, now, True
        worker.lost = min(worker.lost, now)


def _in_one_line(error: Exception) -> str:
    """Join the first and the last line of Ray's message: the event and its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


def node_id() -> str:
    """Return the id of this process's node in Ray; two nodes may have one host name."""
    import ray

    if not ray.is_initialized():
        return platform.node()
    identity: str = ray.get_runtime_context().get_node_id()
    return identity


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
