"""Processor time of a search by kind of process, read from /proc (Linux only).

The kinds of a search are driver, worker, client, idle worker, raylet, gcs, and Ray's other helpers
by the name of their program. Processes of a pool count as `worker`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from parts.memory import descendants

PERIOD_SECONDS = 0.25
TICK = os.sysconf("SC_CLK_TCK")
ACTORS = {
    "WorkerActor": "worker",
    "StubWorker": "worker",
    "IDLE": "idle worker",
    "DashboardAgent": "agents",
    "RuntimeEnvAgent": "agents",
}


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far.

    Raises:
        OSError: if the process has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def kind_of(pid: int) -> str:
    """Return what a descendant of a search is.

    Raises:
        OSError: if the process has ended.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    program = Path(words[0]).name
    if program.startswith("ray::"):
        actor = program.removeprefix("ray::").partition(".")[0]
        return ACTORS.get(actor, "client")
    script = next((Path(word) for word in words[1:4] if word.endswith(".py")), None)
    if script is not None:
        # of …/dashboard/agent.py and …/runtime_env/agent/main.py the folder tells more
        name = script.stem if script.stem not in {"agent", "main"} else script.parent.name
        return "starting worker" if name in {"default_worker", "setup_worker"} else name
    if any("multiprocessing.spawn" in word for word in words):
        return "worker"
    return {"gcs_server": "gcs"}.get(program, program or "ended")


class ProcessTimes(threading.Thread):
    """Samples the processor time of a process and its descendants four times a second.

    Args:
        root: id of the process, which counts as `driver`.
    """

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._done = threading.Event()
        self._kinds: dict[int, str] = {root: "driver"}
        self._seconds: dict[int, float] = {}
        self._times: list[float] = []
        self._samples: list[dict[int, float]] = []
        self.start()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._done.wait(PERIOD_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for pid in descendants(self._root):
            with contextlib.suppress(OSError):  # it has just ended
                self._seconds[pid] = cpu_seconds(pid)
                if pid != self._root:
                    kind = kind_of(pid)
                    # Ray renames a process that it gives to an actor, and back to idle at its end
                    if pid not in self._kinds or kind not in {"idle worker", "ended"}:
                        self._kinds[pid] = kind
        self._times.append(time.time())
        self._samples.append(dict(self._seconds))

    def stop(self) -> None:
        """Stop sampling."""
        self._done.set()
        self.join()

    def until(self, moment: float | None = None) -> dict[str, float]:
        """Return the processor seconds by kind, until a Unix time or in all."""
        at = len(self._times) if moment is None else bisect_right(self._times, moment)
        seconds: Counter[str] = Counter()
        for pid, spent in (self._samples[at - 1] if at else {}).items():
            seconds[self._kinds[pid]] += spent
        return dict(seconds)

    def counts(self) -> Mapping[str, int]:
        """Return the number of processes by kind."""
        return Counter(self._kinds.values())
