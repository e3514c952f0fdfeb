"""The journal of a search: one line per event, fsynced before the event is carried out.

A line is a JSON object that ends in a checksum of the text before the checksum:

    {"event":"report","number":3,…,"time_ms":1795276800000,"after":"9b74c989…","crc":"5d41402a"}

The checksum shows accidents. `after` is the digest of all lines before this one, so that a line
that was edited, removed, added or moved is noticed although its checksum fits. The digest of the
whole journal is recorded with the search; whoever changes both can still forge a search. Lines of
earlier versions have no `after`, and are covered by those that follow them.

A search is resumed by reading its journal from the beginning. A last line that a kill or a power
failure left incomplete is cut off, because its event was not carried out. Any other line that does
not match its checksum is an error. JSON has no NaN: a number that is not finite is written as
`{"$float":"nan"}` (or `inf`, `-inf`), and read back as that number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from model.files import LINK, replacing
from tuner.errors import JournalError, Replaced
from tuner.journal.claim import Claim, open_file
from tuner.journal.epoch import StopRequest, Wait
from tuner.journal.events import Event
from tuner.journal.lines import digest_with, line_of, link_to, parse_lines
from tuner.tracking.tags import JOURNAL_FILE

_RETRY_SECONDS = 1.0


class Journal:
    """The journal of a search that this process runs; made by `Journal.open`.

    Attributes:
        path: path of the journal.
        events: events that the journal had when it was opened.
        begun_ms: time of the first event; 0 without events.
        problem: why events wait in memory for the disk, in one sentence; None if none wait.
        digests: digest of the lines up to each line, with those that wait, as hexadecimal digits.
    """

    def __init__(self, folder: Path, claim: Claim) -> None:
        self.path = folder / JOURNAL_FILE
        self.problem: str | None = None
        self._claim = claim
        self._is_open = True
        self._waiting: list[bytes] = []  # lines
        self._is_together = False
        self._next_try = 0.0
        self._reason: str | None = None
        data = _data(self.path)
        self.events, self._end, self.digests = parse_lines(self.path, data)
        self.begun_ms: int = self.events[0].time_ms if self.events else 0
        if claim.follows_a_kill and data:
            # The driver before may sleep in the middle of a write. Its open file will not be ours.
            with replacing(self.path) as file:
                file.write(data[: self._end])
                file.flush()
                os.fsync(file.fileno())
        self._file = open_file(self.path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._file, self._end)
        _sync_folder(folder)

    @classmethod
    def open(cls, folder: Path, on_wait: Wait | None = None) -> Self:
        """Claim the folder of a search, and open its journal.

        Args:
            folder: folder of the search; created if missing.
            on_wait: as for `Claim.of`.

        Raises:
            JournalInUse: if another process has the journal open.
            JournalError: if the journal cannot be read or written, a line is damaged, or another
                version of tuner wrote a line.
        """
        claim = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                raise JournalError(f"{folder} {LINK}")
            claim = Claim.of(folder, on_wait)
            return cls(folder, claim)
        except BaseException as error:
            if claim is not None:
                claim.end()
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
        self.begun_ms = self.begun_ms or time_ms
        line = line_of({**event.as_json, "time_ms": time_ms, **link_to(self.digest)})
        self.digests.append(digest_with(self.digest, line))
        self._waiting.append(line)
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
    def size(self) -> int:
        """Number of bytes that are on the disk, all of complete lines."""
        return self._end

    @property
    def epoch(self) -> int:
        """Number of the epoch of this driver."""
        return self._claim.epoch.number

    def check_epoch(self) -> None:
        """Check that no other driver has claimed the search.

        Raises:
            Replaced: if another driver has.
        """
        with suppress(OSError):  # as long as nobody can tell, only writing has to wait
            self._claim.epoch.check()

    def stop_request(self) -> StopRequest | None:
        """Return how another process has asked this driver to end the search; None if none has."""
        return self._claim.epoch.stop_request()

    def lose(self, by: str) -> None:
        """Write nothing more: another driver, as `by` says, has claimed the search in storage."""
        self._claim.epoch.lose(by)

    def may_write(self) -> bool:
        """Return True if no other driver has claimed the search, or nobody can tell."""
        try:
            self.check_epoch()
        except Replaced:
            return False
        return True

    @property
    def digest(self) -> str:
        """Digest of the complete journal; empty without lines."""
        return self.digests[-1] if self.digests else ""

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
            self._claim.end()
        if self.problem:
            raise JournalError(f"{self.problem}; the waiting events are lost")

    def _write(self) -> None:
        if time.monotonic() < self._next_try:
            self._explain()
            return
        data = b"".join(self._waiting)
        try:
            self._claim.epoch.check()
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
        self._waiting.clear()
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
        JournalError: if the journal cannot be read, a line is damaged, or another version of tuner
            wrote a line.
    """
    return read_chain(folder)[0]


def read_chain(folder: Path) -> tuple[list[Event], list[str]]:
    """Return the events of a search, and the digest of the lines up to each of them.

    Raises:
        JournalError: as for `read_journal`.
    """
    path = folder / JOURNAL_FILE
    try:
        events, _, digests = parse_lines(path, _data(path))
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    return events, digests


class JournalTail:
    """Reads what a driver adds to the journal of a search.

    Args:
        folder: folder of the search.

    Attributes:
        digest: digest of the lines that were read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self._count, self._end = 0, 0
        self.digest = ""

    def read(self) -> list[Event]:
        """Return the events that were added since the last call; at first, all of them.

        Raises:
            JournalError: as for `read_journal`.
        """
        return self.read_chain()[0]

    def read_chain(self) -> tuple[list[Event], list[str]]:
        """Return the events of `read`, and the digest of the journal up to each of them.

        Raises:
            JournalError: as for `read_journal`.
        """
        try:
            data = _data(self._path, self._end)
        except OSError as error:
            raise JournalError(f"cannot read {self._path}: {error.strerror}") from error
        events, length, digests = parse_lines(self._path, data, self._count, self.digest)
        if events:
            self._count, self._end = self._count + len(events), self._end + length
            self.digest = digests[-1]
        return events, digests


def check_digest(name: str, digests: Sequence[str], recorded: str | None) -> None:
    """Check that a journal begins with the lines that were recorded with the search.

    A journal may have more lines, of a session whose end the tracking store missed.

    Args:
        name: name of the search.
        digests: digest of the lines up to each line.
        recorded: digest that was recorded; None by earlier versions.

    Raises:
        JournalError: if the journal has other lines, or fewer.
    """
    if recorded is not None and recorded not in digests:
        present = short_digest(digests[-1]) if digests else "none"
        raise JournalError(
            f"the journal of {name} is not the one that was recorded with the search: its digest "
            f"is {present}, and {short_digest(recorded)} was recorded; it was edited or cut. "
            f"Restore it: the artifacts of the search in MLflow have a copy"
        )


def short_digest(digest: str) -> str:
    """Return the first 16 digits of a digest, to be read aloud: `3f9a-77b1-c2d4-88e0`."""
    return "-".join(digest[i : i + 4] for i in range(0, 16, 4))


# files --------------------------------------------------------------------------------------


def _data(path: Path, start: int = 0) -> bytes:
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        return b""


def _sync_folder(folder: Path) -> None:
    """Make the file's name survive a power failure, on systems that can sync folders."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
