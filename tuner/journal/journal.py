"""The journal of a search: one line per event, on the disk before anything is done about it.

A line is a JSON object that ends in a checksum of all that stands before it:

    {"event":"report","number":3,…,"time_ms":1795276800000,"crc":"5d41402a"}

A search is resumed by reading it from the beginning. What a kill or a power failure left of the
line that was being written is cut off: nothing had been done about that event. Any other line that
does not fit its checksum is an error. JSON has no NaN: a number that is not finite is written as
`{"$float":"nan"}` (or `inf`, `-inf`), and read back as itself.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tuner.errors import JournalError, JournalInUse
from tuner.journal.events import Event
from tuner.tracking.tags import JOURNAL_FILE

FILE = JOURNAL_FILE
_LOCK = "lock"
_CRC = len(b',"crc":"01234567"}')
_FLOAT = "$float"
_RETRY_SECONDS = 1.0


class Journal:
    """The journal of a search that this process runs; made by `Journal.open`.

    Attributes:
        events: what it held when it was opened.
        begun_ms: time of its first event; 0 if it has none.
        problem: why events wait in memory for the disk, in one sentence; None if none do.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.path = folder / FILE
        self.problem: str | None = None
        self._lock: int | None = lock
        self._waiting: list[bytes] = []  # lines
        self._next_try = 0.0
        self._reason: str | None = None
        self.events, self._end = _parse(self.path, _data(self.path))
        self.begun_ms: int = self.events[0]["time_ms"] if self.events else 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, self._end)
        _sync_folder(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the journal of the search whose folder this is, and keep others from doing so.

        The lock is the kernel's: it ends with this process, however that dies.

        Args:
            folder: of the search; made if need be.

        Raises:
            JournalInUse: if another process has it open.
            JournalError: if it cannot be read or written, or a line is damaged.
        """
        lock = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            _take(lock, folder)
            return cls(folder, lock)
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            if isinstance(error, OSError):
                raise JournalError(f"cannot open {folder / FILE}: {error.strerror}") from error
            raise

    def append(self, event: Mapping[str, Any]) -> int:
        """Add an event; when this returns, it is on the disk, or `problem` says why not.

        An event that the disk does not take waits in memory, before all later ones.

        Args:
            event: anything that JSON can say, and floats that are not finite.

        Returns:
            The time that it got as its `time_ms`.
        """
        time_ms = time.time_ns() // 1_000_000
        self.begun_ms = self.begun_ms or time_ms
        self._waiting.append(_line({**event, "time_ms": time_ms}))
        self._write()
        return time_ms

    def retry(self) -> None:
        """Write what waits for the disk, at most once a second; call it as often as you like."""
        if self._waiting:
            self._write()

    def close(self) -> None:
        """Write what waits, and let others open the journal.

        Raises:
            JournalError: if events could not be written; they are lost.
        """
        if self._lock is None:
            return
        self._next_try = 0.0
        self.retry()
        os.close(self._file)
        os.close(self._lock)
        self._lock = None
        if self.problem:
            raise JournalError(f"{self.problem}; what waited is lost")

    def _write(self) -> None:
        if time.monotonic() < self._next_try:
            self._explain()
            return
        data = b"".join(self._waiting)
        try:
            # what an earlier attempt left of a line must not stay between two whole ones
            os.ftruncate(self._file, self._end)
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], self._end + done)
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # readers had better not see it either
                os.ftruncate(self._file, self._end)
            self._next_try = time.monotonic() + _RETRY_SECONDS
            self._reason = error.strerror
            self._explain()
            return
        self._end += len(data)
        self._waiting.clear()
        self._next_try, self.problem = 0.0, None

    def _explain(self) -> None:
        count = len(self._waiting)
        self.problem = (
            f"cannot write {self.path}: {self._reason}; {count} "
            f"{'event waits' if count == 1 else 'events wait'} in memory until it can be written"
        )


def read_journal(folder: Path) -> list[Event]:
    """The events of a search, whether it is being run or not; none if it has no journal.

    Raises:
        JournalError: if it cannot be read, or a line is damaged.
    """
    path = folder / FILE
    try:
        return _parse(path, _data(path))[0]
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error


# lines --------------------------------------------------------------------------------------


def _line(event: Event) -> bytes:
    text = json.dumps(
        _plain(event), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()
    return b'%s,"crc":"%08x"}\n' % (text[:-1], zlib.crc32(text[:-1]))


def _plain(value: Any) -> Any:
    """The same without floats that JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(float(value))}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _parse(path: Path, data: bytes) -> tuple[list[Event], int]:
    """The events, and how many bytes they take."""
    events: list[Event] = []
    end = 0
    for number, line in enumerate(io.BytesIO(data), start=1):
        is_whole = line.endswith(b"\n")
        event = _event(line[:-1]) if is_whole else None
        if event is None:
            # what a power failure kept from the disk reads as zeros
            if end + len(line) == len(data) and (not is_whole or b"\0" in line):
                break
            raise JournalError(
                f"{path}:{number} is damaged: it does not fit its checksum; restore the file, or "
                "delete this line and all after it to go on from there"
            )
        events.append(event)
        end += len(line)
    return events, end


def _event(line: bytes) -> Event | None:
    body = line[:-_CRC]
    if line[-_CRC:] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    event: Event = json.loads(body + b"}", object_hook=_whole)
    return event


def _whole(value: Event) -> Any:
    return float(value[_FLOAT]) if value.keys() == {_FLOAT} else value


# files --------------------------------------------------------------------------------------


def _data(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _take(lock: int, folder: Path) -> None:
    """Lock a file and leave this process's number in it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode(errors="replace").strip()
        raise JournalInUse(
            f"the search {folder.name} is being run by {f'process {pid}' if pid else 'another'}; "
            "wait for it or stop it first"
        ) from None
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _sync_folder(folder: Path) -> None:
    """Keep the file's name through a power failure, where folders can be synced."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
