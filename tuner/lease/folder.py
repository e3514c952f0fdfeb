"""Leases in the folder of a search, with a lock.

A lock is better proof than a heartbeat, but network file systems may refuse locks or, worse, grant
them to everybody. Who comes second is refused, and told who came first:

    the lock is held    by a command, or by a driver that was heard in the last minute: refused.
                        Otherwise the driver is replaced if it is not heard while we wait
    it is free, or      the newest driver is dead: begin. Otherwise wait whether it is heard
    there are no locks
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from tuner import leaving
from tuner.clock import CLOCK, SystemClock
from tuner.errors import JournalError
from tuner.home.home import is_locked
from tuner.lease.holder import LONGEST_RECORD, Holder
from tuner.lease.lease import Lease, LeaseStore, Wait, epoch_name, epochs_of, in_use
from tuner.lease.lock import LOCK, Lock

_FOLDER = "epochs"
_RECORD_BYTES = 512  # of a record, so that the end of a longer one never stays


class FolderLeases(LeaseStore):
    """The files `epochs/0001`, … of a folder; the time of modification is the heartbeat.

    Args:
        folder: folder of the search, which in the home of somebody else may hold anything.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def epochs(self) -> list[int]:
        """Return the numbers of the leases; none if the folder cannot be opened."""
        try:
            with opened(self._folder) as parent:
                with os.scandir(parent) as files:
                    return epochs_of(file.name for file in files)
        except OSError:
            return []

    def read(self, epoch: int) -> Holder | None:
        """Return who claimed a lease; None if nobody has."""
        name, record, beat = epoch_name(epoch), b"", 0.0
        with opened(self._folder) as parent:
            try:
                os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return None
            with suppress(OSError):
                # opening asks the server of a network file system for the time of modification
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                file = os.open(name, flags, dir_fd=parent)
                try:
                    beat = os.fstat(file).st_mtime
                    record = os.read(file, LONGEST_RECORD)
                finally:
                    os.close(file)
        return Holder.parse(epoch, record, beat)

    def create(self, holder: Holder) -> None:
        """Record a new lease."""
        (self._folder / _FOLDER).mkdir(exist_ok=True)
        self._write(holder, os.O_CREAT | os.O_EXCL)

    def write(self, holder: Holder) -> None:
        """Replace the record of a lease, and its time of modification."""
        self._write(holder, os.O_NONBLOCK)

    def _write(self, holder: Holder, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_NOFOLLOW
        with opened(self._folder) as parent:
            file = os.open(epoch_name(holder.epoch), flags, 0o666, dir_fd=parent)
        try:
            os.utime(file)
            with suppress(OSError):  # the disk may be full; the lease is claimed nevertheless
                os.pwrite(file, holder.record.ljust(_RECORD_BYTES) + b"\n", 0)
        finally:
            os.close(file)


def claim_folder(folder: Path, on_wait: Wait | None = None, clock: SystemClock = CLOCK) -> Lease:
    """Claim the folder of a search.

    Args:
        folder: folder of the search.
        on_wait: as for `Lease.claim`; without it, no driver that holds the lock is replaced.
        clock: clock by which this waits.

    Raises:
        JournalInUse: if another process has claimed it.
        JournalError: if its lock is a link, or no regular file.
        OSError: if it cannot be claimed.
    """
    store, ends = FolderLeases(folder), ExitStack()
    try:
        lock = ends.enter_context(closing(Lock(folder)))
        if lock.is_taken and (on_wait is None or not _may_be_stopped(store.newest(), lock)):
            raise in_use(folder.name, _process(lock))
        lease = Lease.claim(store, folder.name, on_wait, clock, ends=ends, is_only=lock.is_ours)
        ends.enter_context(leaving.on_leaving(lease.say_ended))
        if lock.is_taken:
            lock.replace()
        lock.write_pid()
    except BaseException:
        ends.close()
        raise
    return lease


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a search without a lease: no process can run it meanwhile.

    Raises:
        JournalInUse: if another process runs the search.
        JournalError: if the lock cannot be opened.
    """
    try:
        lock = Lock(folder)
    except OSError as error:
        raise JournalError(f"cannot open {folder / LOCK}: {error.strerror}") from error
    with closing(lock):
        if lock.is_taken:
            raise in_use(folder.name, _process(lock))
        holder = newest(folder)
        if holder is not None and holder.runs and not (lock.is_ours and holder.is_me):
            raise in_use(folder.name, holder)
        lock.write_pid()
        yield


def is_running(folder: Path) -> bool:
    """Return True if a process runs the search of a folder, here or on another machine."""
    if is_locked(folder / LOCK):
        return True
    holder = newest(folder)
    return holder is not None and holder.runs


def newest(folder: Path) -> Holder | None:
    """Return the newest driver of a search; None if there was none, or nobody can tell."""
    with suppress(OSError):
        return FolderLeases(folder).newest()
    return None


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open the folder of the records of a search, which must not be a link.

    A network file system may remember for a minute that a file was missing. Opening its folder
    makes it ask the server.
    """
    parent = os.open(folder / _FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield parent
    finally:
        os.close(parent)


def _may_be_stopped(holder: Holder | None, lock: Lock) -> bool:
    """Return True if a driver has the lock that was not heard for a minute.

    A command such as `tuner delete` has no heartbeat, and is not replaced.
    """
    if holder is None or holder.has_ended or f"{holder.pid}" != lock.pid:
        return False
    return not holder.is_recent


def _process(lock: Lock) -> str:
    return f"process {lock.pid}" if lock.pid else ""
