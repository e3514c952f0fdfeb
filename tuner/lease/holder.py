"""Who has a lease, and the one definition of alive, dead and heard.

A process is named by the start of its machine's kernel, the namespace of process ids in which it
runs (containers share a kernel, and each has ids of its own), its process id, and its start, as a
process id is given again. Only a process of this kernel and namespace can be looked up:

    dead        it has said that it ended; or it ran here, and is not there any more
    alive       it runs here
    unknown     it ran elsewhere: on another machine, before this one was restarted, or in another
                container. Its heartbeats tell
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

from tuner.texts.formatting import shown

LONGEST_RECORD = 4096  # in bytes
# The clocks of two machines may differ by less than this.
STALE_SECONDS = 60.0
# The start of a process is known to the second, as the start of the kernel is.
_SAME_START_SECONDS = 2.0


class Life(Enum):
    """Whether the process of a lease is there."""

    ALIVE = auto()
    DEAD = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)
class Holder:
    """The process that has a lease, as its record says.

    Attributes:
        epoch: number of the lease: 1 for the first driver of a search, 2 for the next, …
        host: name of its machine; empty if the record does not say it.
        boot: id of the start of its machine's kernel.
        namespace: number of its namespace of process ids; 0 where systems have none.
        pid: its process id; 0 if the record does not say it.
        started: time at which it started, in seconds since the start of the kernel.
        since: time at which it claimed the lease, as text.
        has_ended: True if it has said that it ended.
        beat: time of its last heartbeat, in seconds since 1970.
    """

    epoch: int
    host: str = ""
    boot: str = ""
    namespace: int = 0
    pid: int = 0
    started: float = 0.0
    since: str = ""
    has_ended: bool = False
    beat: float = 0.0

    @classmethod
    def me(cls, epoch: int) -> Self:
        """Return this process as the holder of a lease that it claims now."""
        return cls(
            epoch, socket.gethostname(), boot_id(), _namespace(), os.getpid(),
            _start_of(psutil.Process()), time.strftime("%Y-%m-%d %H:%M:%S"), beat=time.time(),
        )  # fmt: skip

    @classmethod
    def parse(cls, epoch: int, record: bytes, beat: float | None = None) -> Self:
        """Read a record, which may be anything: its process was killed as it began to write.

        Args:
            epoch: number of the lease.
            record: text of the record.
            beat: time of the last heartbeat, where the store knows it; else the record says it.
        """
        values: Any = None
        with suppress(ValueError, RecursionError):
            values = json.loads(record[:LONGEST_RECORD])
        values = values if isinstance(values, dict) else {}
        if beat is not None:
            values["beat"] = beat
        types = {field.name: type(field.default) for field in fields(cls)}
        known: dict[str, Any] = {
            key: value for key, value in values.items() if type(value) is types.get(key)
        }
        return cls(epoch, **known)

    @property
    def record(self) -> bytes:
        """The record of the lease."""
        return json.dumps(asdict(self)).encode()

    @property
    def life(self) -> Life:
        """Whether the process is alive, as far as this process can see."""
        if self.has_ended:
            return Life.DEAD
        if (self.boot, self.namespace) != (boot_id(), _namespace()):
            return Life.UNKNOWN
        try:
            process = psutil.Process(self.pid)
            is_it = abs(_start_of(process) - self.started) < _SAME_START_SECONDS
            is_there = is_it and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError):  # ValueError: no number of a process
            return Life.DEAD
        except psutil.Error:  # of another user
            return Life.UNKNOWN
        return Life.ALIVE if is_there else Life.DEAD

    @property
    def is_me(self) -> bool:
        """True if it is this process."""
        return self.pid == os.getpid() and self.life is Life.ALIVE

    @property
    def is_recent(self) -> bool:
        """True if it was heard in the last minute."""
        return time.time() - self.beat < STALE_SECONDS

    @property
    def runs(self) -> bool:
        """True if it is not dead, and was heard in the last minute."""
        return self.is_recent and self.life is not Life.DEAD

    @property
    def text(self) -> str:
        """Which process of which machine it is: `process 42 on gpu-7, since 2026-11-22 20:15`."""
        if not self.pid:
            return "another driver"
        return f"process {self.pid} on {shown(self.host)}, since {shown(self.since)}"


@cache
def boot_id() -> str:
    """Return the id of this start of this machine's kernel; the host's name if it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _namespace() -> int:
    """Return the number of the namespace of process ids in which this process runs."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _start_of(process: psutil.Process) -> float:
    # After the start of the kernel: a correction of the machine's date moves both.
    return float(process.create_time() - psutil.boot_time())
