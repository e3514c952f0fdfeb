"""The journal of a search: one line per event, fsynced before the event is carried out.

A line is a JSON object that ends in a checksum of the text before the checksum:

    {"event":"report","number":3,…,"time_ms":1795276800000,"after":"9b74c989…","crc":"5d41402a"}

The checksum shows accidents. `after` is the digest of all lines before this one, so that a line
that was edited, removed, added or moved is noticed although its checksum fits. The digest of the
whole journal is recorded with the search; whoever changes both can still forge a search.

A search is resumed by reading its journal from the beginning. A last line that a kill or a power
failure left incomplete is cut off, because its event was not carried out. Any other line that does
not match its checksum is an error. JSON has no NaN: a number that is not finite is written as
`{"$float":"nan"}` (or `inf`, `-inf`), and read back as that number.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from model.files import LINK, replacing
from tuner.clock import CLOCK, SystemClock
from tuner.errors import JournalError, Replaced
from tuner.home.home import open_file
from tuner.journal.events import Event, at_time
from tuner.journal.fold import Search
from tuner.journal.lines import Entry, line_of, parse_lines
from tuner.lease.folder import claim_folder
from tuner.lease.lease import Lease, Wait
from tuner.lease.stop_request import StopRequest, stop_request

JOURNAL_FILE = "journal.jsonl"
_RETRY_SECONDS = 1.0
_PART_BYTES = 1 << 20  # of a journal that is read: a large one as a whole would fill the memory


class Journal:
    """The journal of a search that this process runs; made by `Journal.open`.

    Attributes:
        path: path of the journal.
        entries: events that are on the disk, each with the digest of the journal up to it.
        problem: why events wait in memory for the disk, in one sentence; None if none wait.
        digest: digest of the complete journal, with events that wait; empty without events.
    """

    def __init__(self, folder: Path, lease: Lease) -> None:
        self.path = folder / JOURNAL_FILE
        self.problem: str | None = None
        self._lease = lease
        self._is_open = True
        self._waiting: list[tuple[bytes, Entry]] = []  # lines
        self._feeds: list[Feed] = []
        self._is_together = False
        self._next_try = 0.0
        self._reason: str | None = None
        data = _data(self.path)
        self.entries, self._end = parse_lines(self.path, data)
        self.digest = self.entries[-1].digest if self.entries else ""
        if lease.follows_a_kill and data:
            # The driver before may sleep in the middle of a write. Its open file will not be ours.
            with replacing(self.path) as file:
                file.write(data[: self._end])
                file.flush()
                os.fsync(file.fileno())
        self._file = open_file(self.path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._file, self._end)
        _sync_folder(folder)

    @classmethod
    def open(cls, folder: Path, on_wait: Wait | None = None, clock: SystemClock = CLOCK) -> Self:
        """Claim the folder of a search, and open its journal.

        Args:
            folder: folder of the search; created if missing.
            on_wait: as for `Lease.claim`.
            clock: clock by which this waits.

        Raises:
            JournalInUse: if another process has the journal open.
            JournalError: if the journal cannot be read or written, a line is damaged, or another
                version of tuner wrote a line.
        """
        lease = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                raise JournalError(f"{folder} {LINK}")
            lease = claim_folder(folder, on_wait, clock)
            return cls(folder, lease)
        except BaseException as error:
            if lease is not None:
                lease.release()
            if isinstance(error, OSError):
                raise JournalError(
                    f"cannot open {folder / JOURNAL_FILE}: {error.strerror}"
                ) from error
            raise

    def append(self, event: Event) -> int:
        """Add an event. On return it is on the disk, or `problem` says why not.

        In a block of `together` it is so at the end of the block.

        An event that cannot be written waits in memory, before all later events.

        Args:
            event: event to add; its time is ignored.

        Returns:
            Time of the event, `time_ms`.

        Raises:
            Replaced: if another driver has claimed the search; nothing is written.
        """
        time_ms = time.time_ns() // 1_000_000
        line, entry = line_of(at_time(event, time_ms), self.digest)
        self.digest = entry.digest
        self._waiting.append((line, entry))
        if not self._is_together:
            self._write()
        return time_ms

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the events of a block at its end, because each write waits for the disk.

        Blocks may be nested. Raises what `append` raises.
        """
        if self._is_together:
            yield
            return
        self._is_together = True
        try:
            yield
        finally:
            self._is_together = False
            if self._waiting:
                self._write()

    @property
    def events(self) -> list[Event]:
        """All events; those that wait for the disk come last."""
        return [entry.event for entry in (*self.entries, *(entry for _, entry in self._waiting))]

    def feed(self) -> Feed:
        """Return the entries of this journal for a follower in this process."""
        self._feeds.append(Feed(self.entries))
        return self._feeds[-1]

    @property
    def size(self) -> int:
        """Number of bytes that are on the disk, all of complete lines."""
        return self._end

    @property
    def epoch(self) -> int:
        """Number of the epoch of this driver."""
        return self._lease.epoch

    def check_epoch(self) -> None:
        """Check that no other driver has claimed the search.

        Raises:
            Replaced: if another driver has.
        """
        with suppress(OSError):  # as long as nobody can tell, only writing has to wait
            self._lease.check()

    def stop_request(self) -> StopRequest | None:
        """Return how another process has asked this driver to end the search; None if none has."""
        return stop_request(self.path.parent, self.epoch)

    def lose(self, by: str) -> None:
        """Write nothing more: another driver, as `by` says, has claimed the search in storage."""
        self._lease.lose(by)

    def may_write(self) -> bool:
        """Return True if no other driver has claimed the search, or nobody can tell."""
        try:
            self.check_epoch()
        except Replaced:
            return False
        return True

    def retry(self) -> None:
        """Write the waiting events. Tries at most once a second, however often it is called."""
        if self._waiting:
            self._write()

    def close(self) -> None:
        """Write the waiting events, and let other processes open the journal.

        Raises:
            JournalError: if events could not be written; those events are lost.
            Replaced: if events wait, and another driver has claimed the search.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._next_try = 0.0
        try:
            self.retry()
        finally:
            os.close(self._file)
            self._lease.release()
        if self.problem:
            raise JournalError(f"{self.problem}; the waiting events are lost")

    def _write(self) -> None:
        if time.monotonic() < self._next_try:
            self._explain()
            return
        data = b"".join(line for line, _ in self._waiting)
        try:
            self._lease.check()
            # an earlier attempt may have left part of a line, which must not stay between two lines
            os.ftruncate(self._file, self._end)
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], self._end + done)
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # readers should not see part of a line either
                os.ftruncate(self._file, self._end)
            self._next_try = time.monotonic() + _RETRY_SECONDS
            self._reason = error.strerror
            self._explain()
            return
        self._end += len(data)
        self.entries += [entry for _, entry in self._waiting]
        self._waiting.clear()
        for feed in self._feeds:
            feed.wake()
        self._next_try, self.problem = 0.0, None

    def _explain(self) -> None:
        count = len(self._waiting)
        self.problem = (
            f"cannot write {self.path}: {self._reason}; {count} "
            f"{'event waits' if count == 1 else 'events wait'} in memory until it can be written"
        )


def read_journal(folder: Path) -> list[Event]:
    """Return the events of a search, running or not; none if the search has no journal.

    Raises:
        JournalError: as for `read_entries`.
    """
    return [entry.event for entry in read_entries(folder)]


def read_search(folder: Path) -> Search | None:
    """Return the search of a folder; None if none has begun there.

    A folder may be empty, or have a journal without events: the driver was killed before it began.

    Raises:
        JournalError: as for `read_entries`, or if the journal contradicts itself.
    """
    return Search.of(read_journal(folder))


def read_entries(folder: Path) -> list[Entry]:
    """Return the entries of the journal of a search; none if it has no journal.

    Raises:
        JournalError: if the journal cannot be read, a line is damaged, or another version of tuner
            wrote a line.
    """
    return JournalTail(folder).read()


class _News:
    """A wait for entries that another thread ends."""

    def __init__(self) -> None:
        self._news = threading.Event()

    def wait(self, seconds: float, clock: SystemClock) -> None:
        """Wait some seconds, or until `wake` is called."""
        clock.wait(self._news, seconds)
        self._news.clear()

    def wake(self) -> None:
        """End a wait, or the next one."""
        self._news.set()


class Feed(_News):
    """The entries of a journal of this process, as objects; a `Source` of a follower.

    Args:
        entries: entries of the journal, which grow.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__()
        self._entries, self._count = entries, 0

    def read(self) -> Sequence[Entry]:
        """Return the entries since the last call."""
        entries = self._entries[self._count :]
        self._count += len(entries)
        return entries


class JournalTail(_News):
    """Reads what a driver, perhaps of another process, adds to a journal; a `Source` of a follower.

    Args:
        folder: folder of the search.

    Attributes:
        marks: numbers of lines, and of bytes, after which parts of the journal end.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.marks: list[tuple[int, int]] = [(0, 0)]
        self._path = folder / JOURNAL_FILE
        self._count, self._end = 0, 0
        self._digest = ""

    def read(self) -> list[Entry]:
        """Return the entries since the last call; at first, all of them.

        Raises:
            JournalError: as for `read_entries`.
        """
        return [entry for part in self.parts() for entry in part]

    def parts(self) -> Iterator[list[Entry]]:
        """Yield the entries since the last call, about a megabyte of the journal at one time.

        Raises:
            JournalError: as for `read_entries`.
        """
        is_last = False
        while not is_last:
            entries, is_last = self._part()
            if entries:
                yield entries

    def _part(self) -> tuple[list[Entry], bool]:
        """Return the next entries, and whether no further ones were there."""
        most = _PART_BYTES
        while True:
            try:
                data = self._data(self._end, most)
            except OSError as error:
                raise JournalError(f"cannot read {self._path}: {error.strerror}") from error
            entries, length = parse_lines(self._path, data, self._count, self._digest)
            if entries or len(data) < most:
                break
            most *= 2  # for a longer line
        if entries:
            self._count, self._end = self._count + len(entries), self._end + length
            self._digest = entries[-1].digest
        if self._end >= self.marks[-1][1] + _PART_BYTES // 2:
            self.marks.append((self._count, self._end))
        return entries, len(data) < most

    def _data(self, start: int, most: int) -> bytes:
        """Return the journal from a byte on; fewer bytes than `most` are all that there are."""
        return _data(self._path, start, most)


def check_digest(name: str, entries: Sequence[Entry], recorded: str | None) -> None:
    """Check that a journal begins with the lines that were recorded with the search.

    A journal may have more lines, of a session whose end the tracking store missed.

    Args:
        name: name of the search.
        entries: entries of the journal.
        recorded: digest that was recorded; None if none was.

    Raises:
        JournalError: if the journal has other lines, or fewer.
    """
    if recorded is not None and recorded not in {entry.digest for entry in entries}:
        present = short_digest(entries[-1].digest) if entries else "none"
        raise JournalError(
            f"the journal of {name} is not the one that was recorded with the search: its digest "
            f"is {present}, and {short_digest(recorded)} was recorded; it was edited or cut. "
            f"Restore it: the artifacts of the search in MLflow have a copy"
        )


def short_digest(digest: str) -> str:
    """Return the first 16 digits of a digest, to be read aloud: `3f9a-77b1-c2d4-88e0`."""
    return "-".join(digest[i : i + 4] for i in range(0, 16, 4))


# files --------------------------------------------------------------------------------------


def _data(path: Path, start: int = 0, most: int = -1) -> bytes:
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            file.seek(start)
            return file.read(most)
    except FileNotFoundError:
        return b""


def _sync_folder(folder: Path) -> None:
    """Make the file's name survive a power failure, on systems that can sync folders."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
