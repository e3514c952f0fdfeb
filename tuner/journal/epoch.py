"""Epochs of a search: which driver may write, also where locks do not work.

Each driver claims the next number by creating `epochs/0001`, `epochs/0002`, … in the folder of the
search. Only one process can create a file, on every file system. A driver whose next number exists
was replaced, and writes nothing more. So a driver that sleeps, or that is cut off for a while, does
no harm when it wakes.

A file beside it, `0001.stop-soon` or `0001.stop-now`, asks the driver to end the search.

A file says who claimed the epoch. Its time of modification is a heartbeat, and its text says when
the driver has ended. The lock of the journal is better proof of life on one machine, but network
file systems may refuse locks or, worse, grant them to everybody. So a driver of this machine whose
process is there counts, though its lock was granted to another one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

from tuner.errors import Replaced
from tuner.formatting import shown

_FOLDER = "epochs"
_NAME = re.compile(r"[0-9]{4,9}")
_LONGEST_TEXT = 4096  # of a file, in bytes
_LONGEST_HOST = 255
_BEAT_SECONDS = 5.0
_POLL_SECONDS = 0.2
# A driver that is not heard for so long is taken for dead. If it lives, it is fenced: nothing is
# damaged, and its work since its last report is lost.
PATIENCE_SECONDS = 20.0
# Times of one process's start, which a correction of the clock may change a little.
_SAME_START_SECONDS = 2.0
# The clocks of two machines may differ by less than this.
STALE_SECONDS = 60.0

Wait = Callable[["Holder"], None]


@dataclass(frozen=True)
class Holder:
    """The driver that claimed an epoch, as the file of the epoch says.

    Attributes:
        epoch: number of the epoch.
        host: name of its machine; empty if the file does not say it.
        pid: its process id; 0 if the file does not say it.
        boot: id of the start of its machine's kernel.
        started: time at which its process started, in seconds since the epoch; 0 if the file, of an
            earlier version, does not say it.
        since: time at which it claimed the epoch, as text.
        has_ended: True if it has ended by itself.
        beat: time of its last heartbeat, in seconds since the epoch.
    """

    epoch: int
    host: str
    pid: int
    boot: str
    started: float
    since: str
    has_ended: bool
    beat: float

    @property
    def is_here(self) -> bool:
        """True if the driver ran on this machine since it was started."""
        return self.boot == boot_id()

    @property
    def has_died(self) -> bool:
        """True if the driver ran on this machine, and its process is not there any more.

        A lock that this process gets says enough of an earlier driver in this very process.
        """
        if not self.is_here or self.pid == os.getpid():
            return self.is_here
        try:
            process = psutil.Process(self.pid)
            is_it = abs(process.create_time() - self.started) < _SAME_START_SECONDS
            return not is_it or process.status() == psutil.STATUS_ZOMBIE
        except psutil.AccessDenied:  # of another user: it may be
            return False
        except (psutil.Error, ValueError):
            return True

    @property
    def may_live(self) -> bool:
        """True if the driver has not ended, and was heard in the last minute."""
        return not self.has_ended and time.time() - self.beat < STALE_SECONDS

    @property
    def text(self) -> str:
        """Which process of which machine it is: `process 42 on gpu-7, since 2026-11-22 20:15`."""
        if not self.pid:
            return "another driver"
        return f"process {self.pid} on {shown(self.host)}, since {shown(self.since)}"


class StopRequest(StrEnum):
    """How a driver is asked to end its search, in the order in which it looks for requests."""

    NOW = "now"  # without waiting
    SOON = "soon"  # after the reports under way

    @property
    def suffix(self) -> str:
        """What the name of the file of a request adds to that of the epoch."""
        return f".stop-{self}"


class Epoch:
    """The epoch of a driver, which it holds until it ends or is replaced; made by `claim`.

    Attributes:
        number: number of the epoch.
    """

    def __init__(self, folder: Path, number: int, file: int) -> None:
        self.number = number
        self._folder, self._search, self._file = folder / _FOLDER, folder.name, file
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._lost_to = ""
        self._has_ended = threading.Event()
        self._write()
        beat = threading.Thread(target=self._beat, args=(os.dup(file),), name="epoch", daemon=True)
        beat.start()

    @classmethod
    def claim(cls, folder: Path, after: Holder | None) -> Self:
        """Claim the epoch that follows another one.

        Args:
            folder: folder of the search.
            after: newest epoch; None if there is none.

        Raises:
            FileExistsError: if another driver has claimed it first.
            OSError: if it cannot be claimed.
        """
        number = 1 if after is None else after.epoch + 1
        (folder / _FOLDER).mkdir(exist_ok=True)
        parent = _open_folder(folder)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
            return cls(folder, number, os.open(_name(number), flags, 0o666, dir_fd=parent))
        finally:
            os.close(parent)

    def lose(self, by: str) -> None:
        """Let all checks fail: another driver has claimed the search elsewhere, in its storage.

        Args:
            by: which process of which machine it is.
        """
        self._lost_to = by

    def check(self) -> None:
        """Check that no other driver has claimed the next epoch.

        Raises:
            Replaced: if another driver has.
            OSError: if the folder cannot be read.
        """
        if self._lost_to:
            raise Replaced(self._search, self._lost_to)
        # A network file system may remember for a minute that a file was missing. Opening the
        # folder makes it ask the server.
        parent = _open_folder(self._folder.parent)
        try:
            os.stat(_name(self.number + 1), dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        finally:
            os.close(parent)
        by = newest(self._folder.parent)
        raise Replaced(self._search, by.text if by else "another driver")

    def stop_request(self) -> StopRequest | None:
        """Return how `request_stop` has asked this driver to end; None if it has not."""
        with suppress(OSError):  # as long as nobody can tell, the search goes on
            parent = _open_folder(self._folder.parent)
            try:
                for request in StopRequest:
                    with suppress(FileNotFoundError):
                        name = _name(self.number) + request.suffix
                        os.stat(name, dir_fd=parent, follow_symlinks=False)
                        return request
            finally:
                os.close(parent)
        return None

    def end(self) -> None:
        """Note that this driver has ended, so that the next one need not wait."""
        self._has_ended.set()
        self._write()
        os.close(self._file)

    def _write(self) -> None:
        values = {
            "host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id(),
            "started": psutil.Process().create_time(), "since": self._since,
            "ended": self._has_ended.is_set(),
        }  # fmt: skip
        with suppress(OSError):  # the disk may be full; the epoch is claimed nevertheless
            text = json.dumps(values).encode()
            os.pwrite(self._file, text.ljust(_LONGEST_TEXT // 8) + b"\n", 0)

    def _beat(self, file: int) -> None:
        while not self._has_ended.wait(_BEAT_SECONDS):
            with suppress(OSError):
                os.utime(file)
        os.close(file)


def newest(folder: Path) -> Holder | None:
    """Return who claimed the newest epoch of a search; None if there is none, as in old homes."""
    try:
        parent = _open_folder(folder)
    except OSError:
        return None
    try:
        with os.scandir(parent) as files:
            numbers = [int(file.name) for file in files if _NAME.fullmatch(file.name)]
        return _holder(parent, max(numbers)) if numbers else None
    finally:
        os.close(parent)


def request_stop(folder: Path, holder: Holder, request: StopRequest) -> None:
    """Ask the driver of a search to end it, wherever it runs: it looks once a second.

    Args:
        folder: folder of the search.
        holder: newest driver of the search.
        request: how.

    Raises:
        OSError: if the request cannot be written.
    """
    parent = _open_folder(folder)
    try:
        name = _name(holder.epoch) + request.suffix
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666, dir_fd=parent))
    finally:
        os.close(parent)


def is_heard(folder: Path, holder: Holder, on_wait: Wait) -> bool:
    """Wait for a heartbeat; return True as soon as one comes, False if none comes or it has ended.

    Heartbeats are compared with each other, never with a clock: machines may differ in theirs.

    Args:
        folder: folder of the search.
        holder: driver that may live.
        on_wait: called again and again meanwhile.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        on_wait(holder)
        time.sleep(_POLL_SECONDS)
        now = newest(folder)
        if now is None or now.has_ended:
            return False
        if (now.epoch, now.beat) != (holder.epoch, holder.beat):
            return True
    return False


def read_holder(number: int, text: bytes, beat: float) -> Holder:
    """Return what the text of an epoch says, which may be anything.

    Args:
        number: number of the epoch.
        text: content of its file.
        beat: time of its last heartbeat.
    """
    values: Any = None
    with suppress(ValueError, RecursionError):
        values = json.loads(text[:_LONGEST_TEXT])
    values = values if isinstance(values, dict) else {}
    host, boot, since = (str(values.get(k, ""))[:_LONGEST_HOST] for k in ("host", "boot", "since"))
    pid, started = values.get("pid"), values.get("started")
    return Holder(
        number, host, pid if isinstance(pid, int) else 0, boot,
        started if isinstance(started, float) else 0.0, since, bool(values.get("ended")), beat,
    )  # fmt: skip


@cache
def boot_id() -> str:
    """Return the id of this start of this machine's kernel; the host's name if it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _name(number: int) -> str:
    return f"{number:04d}"


def _open_folder(folder: Path) -> int:
    return os.open(folder / _FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _holder(parent: int, number: int) -> Holder:
    """Read the file of an epoch, which in the home of somebody else may be anything."""
    text, beat = b"", 0.0
    with suppress(OSError):
        # opening asks the server of a network file system for the time of modification
        file = os.open(_name(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        try:
            beat = os.fstat(file).st_mtime
            text = os.read(file, _LONGEST_TEXT)
        finally:
            os.close(file)
    return read_holder(number, text, beat)
