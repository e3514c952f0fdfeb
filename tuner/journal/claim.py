"""Claims of a search's folder: one driver at a time may write to it.

A claim is a lock, which the kernel ends with its process however that dies, and an epoch, which
also holds where locks do not work. Who comes second is refused, and told who came first:

    the lock is held      by a command or a driver that is heard: refused. The driver was not heard
                          for a minute, and is not heard while we wait: replaced
    the lock is free      the newest driver has ended, or its process on this machine has: begin. It
                          ran elsewhere, where its lock may not count here, or its process is there,
                          as file systems grant locks to everybody: wait whether it is heard
    there are no locks    the newest driver has not ended: wait whether it is heard
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from model.files import NotRegular, hidden_name, open_regular
from tuner import leaving
from tuner.errors import JournalError, JournalInUse
from tuner.home import is_locked
from tuner.journal.epoch import Epoch, Holder, Wait, is_heard, newest

_LOCK = "lock"
_LOCK_ATTEMPTS, _LOCK_SECONDS = 3, 0.05


class Claim:
    """The claim of this process on a search's folder; made by `Claim.of`.

    Attributes:
        epoch: its epoch.
        follows_a_kill: True if the driver before did not end by itself: it may wake, and write to
            files that it has open.
    """

    def __init__(self, lock: int, epoch: Epoch, *, follows_a_kill: bool) -> None:
        self.epoch, self.follows_a_kill = epoch, follows_a_kill
        self._lock, self._ends = lock, ExitStack()
        self._ends.enter_context(leaving.on_leaving(epoch.end))  # the next one need not wait

    @classmethod
    def of(cls, folder: Path, on_wait: Wait | None = None) -> Self:
        """Claim a folder.

        Args:
            folder: folder of the search.
            on_wait: called again and again while this waits whether a driver is heard; without it,
                a driver that was heard in the last minute is taken for alive.

        Raises:
            JournalInUse: if another process has claimed it.
            OSError: if it cannot be claimed.
        """
        lock, has_lock = _lock(folder)
        try:
            before = newest(folder)
            _check_free(folder, lock, has_lock, before, on_wait)
            try:
                epoch = Epoch.claim(folder, before)
            except FileExistsError as error:
                raise _in_use(folder, newest(folder)) from error
            if has_lock is False:  # by a driver that does not answer: leave the lock to it
                held, lock = lock, _new_lock(folder)
                os.close(held)
        except BaseException:
            os.close(lock)
            raise
        _write_pid(lock)
        return cls(lock, epoch, follows_a_kill=before is not None and not before.has_ended)

    def end(self) -> None:
        """Let other processes claim the folder."""
        self._ends.close()
        self.epoch.end()
        os.close(self._lock)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a search without reading its journal: no process can run it meanwhile.

    Raises:
        JournalInUse: if another process runs the search.
        JournalError: if the lock cannot be opened.
    """
    try:
        lock, has_lock = _lock(folder)
    except OSError as error:
        raise JournalError(f"cannot open {folder / _LOCK}: {error.strerror}") from error
    try:
        _check_free(folder, lock, has_lock, newest(folder), None)
        _write_pid(lock)
        yield
    finally:
        os.close(lock)


def is_running(folder: Path) -> bool:
    """Return True if a process runs the search of a folder, here or on another machine."""
    if is_locked(folder / _LOCK):
        return True
    holder = newest(folder)
    return holder is not None and holder.may_live and not holder.has_died


def open_file(path: Path, flags: int) -> int:
    """Open a file, which must not be a link: in the home of somebody else, it may lead anywhere.

    Raises:
        JournalError: if the path is a link, or no regular file.
    """
    try:
        return open_regular(path, flags)
    except NotRegular as error:
        raise JournalError(str(error)) from error


def _check_free(
    folder: Path, lock: int, has_lock: bool | None, before: Holder | None, on_wait: Wait | None
) -> None:
    """Raise JournalInUse if another process has claimed a folder, or may have."""
    has_ended = before is None or before.has_ended
    if has_lock is False:
        pid = _pid(lock)
        # Only a driver is replaced, not a command such as `tuner delete`, which has no heartbeat.
        if on_wait is None or before is None or before.may_live or f"{before.pid}" != pid:
            raise _in_use(folder, None, pid)
        if has_ended or is_heard(folder, before, on_wait):
            raise _in_use(folder, None, pid)
    elif before is not None and not has_ended and not (has_lock and before.has_died):
        lives = before.may_live if on_wait is None else is_heard(folder, before, on_wait)
        if lives:
            raise _in_use(folder, before)


def _in_use(folder: Path, holder: Holder | None, pid: str = "") -> JournalInUse:
    who = holder.text if holder else f"process {pid}" if pid else "another"
    return JournalInUse(
        f"the search {folder.name} is being run by {who}; wait for it or stop it first"
    )


def _lock(folder: Path) -> tuple[int, bool | None]:
    """Open the lock of a folder and try to lock it.

    Returns:
        The open file, and True if this process has the lock now, False if another one has it, None
        if the file system has no locks.
    """
    path, lock = folder / _LOCK, -1
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            os.close(lock)
            time.sleep(_LOCK_SECONDS)  # `is_running` may hold the lock for an instant
        lock = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return lock, None
        if os.path.samestat(os.fstat(lock), path.stat()):  # else a new lock has replaced it
            return lock, True
    return lock, False


def _new_lock(folder: Path) -> int:
    """Replace the lock of a folder by another one, which this process has; return its file."""
    path = hidden_name(folder / _LOCK)
    lock = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.replace(folder / _LOCK)
    return lock


def _pid(lock: int) -> str:
    """Return the process id that a lock names; empty if it names none."""
    return os.pread(lock, 20, 0).decode(errors="replace").strip()


def _write_pid(lock: int) -> None:
    with suppress(OSError):  # the disk may be full; the lock holds without the id
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
