"""Followers: threads that keep something level with the journal of a search.

What a search writes somewhere else (MLflow, a bucket, messages, the terminal) is a `Projection` of
its journal. A follower reads the events once they are on the disk, folds them, hands them to its
projection, and lets it send; what is refused is tried again, later and later. Nothing waits for a
follower until the end of a search, and then only for a while. A killed driver's successor, or
`tuner sync`, follows from the beginning and sends what is missing.

    journal ─ Feed ──────┐
                         ├─▶ Follower: fold ─▶ Projection.take … Projection.send ─▶ cursor
    file ─── JournalTail ┘
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from model.files import replacing
from tuner.clock import CLOCK, SystemClock
from tuner.errors import Replaced, TunerError
from tuner.journal.fold import Search
from tuner.journal.lines import Entry

CURSORS = "cursors"  # folder beside the journal
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 1.0, 30.0  # before another try; the first in flush
_LAST_DELAY_SECONDS = 0.2  # before another try in close
_POLL_SECONDS = 0.5  # longest wait for news


class Projection:
    """What a follower keeps level with a journal; every method does nothing unless overridden.

    A projection has no thread, no clock and no retries: its follower has. Its methods run in the
    follower's thread.

    Attributes:
        name: what is written, in messages such as `NAME can be written again`.
        period_seconds: time in which events are collected before they are sent together.
        progress: number that grows whenever something was sent, also by a call that then raised.
    """

    name = "a projection"
    period_seconds = 0.0
    progress = 0

    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        """Note an event; return at once.

        Args:
            entry: the event, and the digest of the journal up to it.
            search: the search up to this event.
            is_sent: True if the cursor says that the event was sent by an earlier follower.
        """

    def send(self) -> None:
        """Send what was noted; called again and again, also without new events.

        Raises:
            Exception: if something was not sent. It is noted still, and the next call tries again.
        """

    def problem(self, reason: str) -> str:
        """Return a sentence for people that something is not sent at present."""
        return f"{self.name} cannot be written: {reason}"

    def close(self) -> None:
        """Free what the projection holds; nothing is sent any more."""


class Source(Protocol):
    """Entries of a journal, as they come."""

    def read(self) -> Sequence[Entry]:
        """Return the entries since the last call, all of them on the disk; at first all there are.

        Raises:
            JournalError: if the journal cannot be read.
        """

    def wait(self, seconds: float, clock: SystemClock) -> None:
        """Wait until there may be entries to read, or `wake` is called."""

    def wake(self) -> None:
        """End a wait."""


class Cursor:
    """How far a projection was level, in a file that the next follower of the search reads.

    A cursor that is lost or late costs a comparison or a repeated message, never an event: so it is
    not flushed to the disk.

    Args:
        folder: folder of the search.
        key: name of the projection.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / CURSORS / key

    def read(self) -> tuple[int, str] | None:
        """Return the number of events that were sent, and the digest up to them."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            count, digest = values["events"], values["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_valid = isinstance(count, int) and count >= 0 and isinstance(digest, str)
        return (count, digest) if is_valid else None

    def write(self, count: int, digest: str) -> None:
        """Note that so many events were sent; a full disk keeps the number before."""
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            with replacing(self._path) as file:
                file.write(json.dumps({"events": count, "digest": digest}).encode())


class Follower:
    """Keeps a projection level with a journal, in a thread.

    Args:
        projection: what is kept level.
        source: entries of the journal.
        cursor: where it is noted how far the projection is level; None to note nothing.
        from_now: True if the projection is not told of what was there before it, when no cursor
            says how far it was.
        may_write: returns False once another driver has claimed the search; the follower then ends.
        clock: the clock by which it waits.

    Attributes:
        projection: what is kept level.
    """

    def __init__(
        self,
        projection: Projection,
        source: Source,
        cursor: Cursor | None = None,
        *,
        from_now: bool = False,
        may_write: Callable[[], bool] = lambda: True,
        clock: SystemClock = CLOCK,
    ) -> None:
        self.projection = projection
        self._source, self._cursor, self._from_now = source, cursor, from_now
        self._may_write, self._clock = may_write, clock
        self._search: Search | None = None
        self._fault: Exception | None = None  # why events cannot be taken any more
        self._digest = ""
        self._num_taken = self._num_skipped = 0
        self._requested = self._answered = 0  # calls that wait until all is sent
        self._reason: str | None = None
        self._is_begun = self._is_closing = self._is_awaited = False
        self._deadline = 0.0
        self._hurry, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=projection.name, daemon=True)

    def start(self) -> Follower:
        """Begin to follow, unless it has begun."""
        if self._thread.ident is not None:
            return self
        if self._from_now:
            with suppress(TunerError):  # the thread meets it again, and says so
                self._take()  # now, so that what comes after this call is new
        self._thread.start()
        return self

    @property
    def reason(self) -> str | None:
        """Why something is not sent at present; None if nothing is late."""
        return self._reason

    @property
    def problem(self) -> str | None:
        """Sentence about what is not sent at present; None if nothing is late."""
        reason = self._reason
        return None if reason is None else self.projection.problem(reason)

    def flush(self, patience_seconds: float) -> str | None:
        """Wait until all events of the journal are sent, as long as there is progress.

        Args:
            patience_seconds: longest wait without progress.

        Returns:
            Why they are not, in a sentence; None if they are.
        """
        self._is_awaited = True
        request = self._request()
        progress, until = -1, 0.0
        while self._thread.is_alive() and self._answered < request:
            if self.projection.progress != progress:
                progress, until = self.projection.progress, self._clock.now() + patience_seconds
            if (left := until - self._clock.now()) <= 0:
                break
            self._clock.wait(self._changed, left)
            self._changed.clear()
        self._is_awaited = False
        return self._missing(request)

    def close(self, patience_seconds: float) -> str | None:
        """Send what waits, and end.

        Args:
            patience_seconds: longest wait.

        Returns:
            What was not sent, in a sentence; None if all was, or if another driver has claimed the
            search.
        """
        self._deadline = self._clock.now() + patience_seconds
        self._is_closing = True
        request = self._request()
        self._thread.join(patience_seconds)
        return self._missing(request)

    def _request(self) -> int:
        """Ask the thread to send all that the source has now."""
        self._requested += 1
        self._hurry.set()
        self._source.wake()
        return self._requested

    def _missing(self, request: int) -> str | None:
        if self._answered >= request or not self._may_write():
            return None
        return self.problem or self.projection.problem("it does not answer")

    # the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        delay = 0.0
        while self._may_write():
            is_last = self._is_closing
            if self._step():
                if is_last:
                    break
                delay = 0.0
                self._source.wait(max(self.projection.period_seconds, _POLL_SECONDS), self._clock)
                self._clock.wait(self._hurry, self.projection.period_seconds)
            elif not is_last:
                longest = _FIRST_DELAY_SECONDS if self._is_awaited else _LONGEST_DELAY_SECONDS
                delay = min(2 * delay or _FIRST_DELAY_SECONDS, longest)
                self._clock.wait(self._hurry, delay)
            elif self._clock.now() < self._deadline:
                self._clock.sleep(_LAST_DELAY_SECONDS)
            else:
                break
            self._hurry.clear()
        self.projection.close()
        self._changed.set()

    def _step(self) -> bool:
        """Take the new events, and send; return True if all is sent."""
        request, before = self._requested, self._num_taken
        try:
            self._take()
            self.projection.send()
        except Replaced:
            return True  # `_may_write` says so too
        except Exception as error:  # noqa: BLE001 - whatever a store raises, try again
            self._reason = _reason_of(error)
            self._changed.set()
            return False
        is_news = self._num_taken > before or self._reason is not None
        if self._cursor is not None and is_news:
            self._cursor.write(self._num_taken, self._digest)
        self._reason, self._answered = None, request
        self._changed.set()
        return True

    def _take(self) -> None:
        if self._fault is not None:
            raise self._fault
        entries = self._source.read()
        if not self._is_begun:
            self._is_begun, self._num_skipped = True, self._known(entries)
        try:
            for entry in entries:
                self._search = Search.after(self._search, entry.event)
                self._num_taken, self._digest = self._num_taken + 1, entry.digest
                is_sent = self._num_taken <= self._num_skipped
                self.projection.take(entry, self._search, is_sent=is_sent)
        except Exception as error:  # the source will not give an entry again
            self._fault = error
            raise

    def _known(self, entries: Sequence[Entry]) -> int:
        """Return the number of events that were sent before this follower."""
        at = self._cursor.read() if self._cursor else None
        if at is not None and at[0] == 0:
            return 0
        if at is not None and at[0] <= len(entries) and entries[at[0] - 1].digest == at[1]:
            return at[0]
        count = len(entries) if self._from_now else 0
        if self._cursor is not None:  # now: the next follower must not begin later than this one
            self._cursor.write(count, entries[-1].digest if count else "")
        return count


def _reason_of(error: Exception) -> str:
    """Return why something was not sent, in one line."""
    if isinstance(error, TunerError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.partition("\n")[0] or type(error).__name__
