"""Leases of a search: which driver may write, also where locks do not work.

Each driver claims the next number, its *epoch*, by creating a record: `epochs/0001`, `epochs/0002`,
… in the folder of the search, or in its bucket. Only one process can create a file, on every store.
A driver whose next number exists was replaced, and writes nothing more. So a driver that sleeps, or
that is cut off for a while, does no harm when it wakes.

A record says who claimed the lease, has a heartbeat, and says when the driver has ended. The next
driver begins at once if the one before is dead. Otherwise it listens: a driver that is heard is
left alone, and one that is not heard is replaced. If it lives nevertheless, nothing is damaged, and
its work since its last report is lost.
"""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Self

from tuner.clock import CLOCK, SystemClock
from tuner.errors import JournalInUse, Replaced, StorageError
from tuner.lease.holder import Holder, Life

PATIENCE_SECONDS = 20.0
_BEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5
_NAME = re.compile(r"[0-9]{4,9}")

Wait = Callable[[Holder], None]


class LeaseStore(ABC):
    """Where the leases of a search are recorded. All methods raise OSError or StorageError."""

    @abstractmethod
    def epochs(self) -> list[int]:
        """Return the numbers of the leases."""

    @abstractmethod
    def read(self, epoch: int) -> Holder | None:
        """Return who claimed a lease; None if nobody has."""

    @abstractmethod
    def create(self, holder: Holder) -> None:
        """Record a new lease.

        Raises:
            FileExistsError: if somebody has claimed it.
        """

    @abstractmethod
    def write(self, holder: Holder) -> None:
        """Replace the record of a lease, which is a heartbeat."""

    def newest(self) -> Holder | None:
        """Return who claimed the newest lease; None if nobody has claimed any."""
        epochs = self.epochs()
        return self.read(max(epochs)) if epochs else None


class Lease:
    """The right of this process to write a search, until another takes over; made by `claim`.

    A thread sends heartbeats until the lease is released.

    Attributes:
        epoch: its number.
        follows_a_kill: True if the driver before did not end by itself: it may wake, and write to
            files that it has open.
    """

    def __init__(
        self,
        store: LeaseStore,
        search: str,
        me: Holder,
        clock: SystemClock,
        on_replaced: Callable[[str], None],
        ends: ExitStack,
        *,
        follows_a_kill: bool,
    ) -> None:
        self.epoch, self.follows_a_kill = me.epoch, follows_a_kill
        self._store, self._search, self._me, self._clock = store, search, me, clock
        self._on_replaced, self._ends = on_replaced, ends
        self._replaced_by = ""
        self._is_over = threading.Event()
        self._writes = threading.Lock()
        ends.callback(self.say_ended)
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    @classmethod
    def claim(
        cls,
        store: LeaseStore,
        search: str,
        on_wait: Wait | None = None,
        clock: SystemClock = CLOCK,
        on_replaced: Callable[[str], None] = lambda by: None,
        ends: ExitStack | None = None,
        *,
        is_only: bool = False,
    ) -> Self:
        """Claim the next lease of a search.

        Args:
            store: where its leases are recorded.
            search: name of the search.
            on_wait: called again and again while this waits whether a driver is heard; without it,
                a driver that was heard in the last minute is taken for alive.
            clock: clock by which this waits.
            on_replaced: called with the text of the driver that replaces this one, in any thread.
            ends: closed when the lease is released, after other processes are told.
            is_only: True if this process is known to have no other lease of the search: an earlier
                one may be recorded, as no record can be written to a full disk.

        Raises:
            JournalInUse: if another driver runs the search.
            OSError, StorageError: if the store cannot be used.
        """
        before = store.newest()
        if before is not None and not (is_only and before.is_me):
            runs = before.runs if on_wait is None else is_heard(store, before, on_wait, clock)
            if runs:
                raise in_use(search, before)
        me = Holder.me(1 if before is None else before.epoch + 1)
        try:
            store.create(me)
        except FileExistsError as error:
            raise in_use(search, store.newest()) from error
        return cls(
            store, search, me, clock, on_replaced, ExitStack() if ends is None else ends,
            follows_a_kill=before is not None and not before.has_ended,
        )  # fmt: skip

    def check(self) -> None:
        """Check that no other driver has claimed the next lease.

        Raises:
            Replaced: if another driver has.
            OSError, StorageError: if nobody can tell.
        """
        if not self._replaced_by:
            after = self._store.read(self.epoch + 1)
            if after is None:
                return
            self.lose(after.text)
        raise Replaced(self._search, self._replaced_by)

    def lose(self, by: str) -> None:
        """Let all checks fail: another driver has claimed the search, here or in another store.

        Args:
            by: which process of which machine it is.
        """
        self._replaced_by = by
        self._on_replaced(by)

    @property
    def is_lost(self) -> bool:
        """True if a check has found that another driver has claimed the search."""
        return bool(self._replaced_by)

    def refresh(self) -> None:
        """Send a heartbeat.

        Raises:
            Replaced, OSError, StorageError: as `check`.
        """
        self.check()
        self._write()

    def say_ended(self) -> None:
        """Say that this driver has ended, so that the next one need not wait."""
        self._is_over.set()
        with suppress(OSError, StorageError):  # then the next one waits
            self._write()

    def release(self) -> None:
        """Let other processes claim the search."""
        self._ends.close()

    def _write(self) -> None:
        with self._writes:  # a heartbeat under way must not follow the end
            has_ended = self._is_over.is_set()
            self._store.write(replace(self._me, has_ended=has_ended, beat=time.time()))

    def _beat(self) -> None:
        while not self._clock.wait(self._is_over, _BEAT_SECONDS) and not self.is_lost:
            with suppress(OSError, StorageError, Replaced):
                self.refresh()


def is_heard(store: LeaseStore, holder: Holder, on_wait: Wait, clock: SystemClock = CLOCK) -> bool:
    """Wait for a heartbeat; return True as soon as one comes, False if none comes or it is dead.

    Heartbeats are compared with each other, never with a clock: machines may differ in theirs.

    Args:
        store: where the leases of the search are recorded.
        holder: newest holder.
        on_wait: called again and again meanwhile.
        clock: clock by which this waits.
    """
    now: Holder | None = holder
    until = clock.now() + PATIENCE_SECONDS
    while now is not None and now.life is not Life.DEAD and clock.now() < until:
        on_wait(holder)
        clock.sleep(_POLL_SECONDS)
        now = store.newest()
        if now is not None and (now.epoch, now.beat) != (holder.epoch, holder.beat):
            return not now.has_ended
    return False


def in_use(search: str, who: Holder | str | None) -> JournalInUse:
    """Return the error that another process runs a search, which the message names."""
    text = who.text if isinstance(who, Holder) else who or "another"
    return JournalInUse(f"the search {search} is being run by {text}; wait for it or stop it first")


def epoch_name(epoch: int) -> str:
    """Return the name of the record of a lease, and of other files of its driver."""
    return f"{epoch:04d}"


def epochs_of(names: Iterable[str]) -> list[int]:
    """Return the numbers that are names of records, in order."""
    return sorted(int(name) for name in names if _NAME.fullmatch(name))
