"""The journal of a running search in its storage, and back from there.

    {url}/epochs/0002                    the driver that claimed it, with its heartbeat
    {url}/journal/0002/00000001.jsonl    lines of the journal of that driver, in order

Only one driver can create an epoch. Each driver sends its journal to a folder of its own, all
earlier lines first; the newest folder is the journal. So what a driver still sends that was cut off
for a while, and does not know yet that it was replaced, reaches a folder that nobody reads.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from model.files import replacing
from tuner.errors import JournalInUse, Replaced, StorageError
from tuner.formatting import counted
from tuner.home import Home
from tuner.journal import epoch
from tuner.journal.claim import locked
from tuner.journal.epoch import Holder, Wait, boot_id, read_holder
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import begun_search
from tuner.space.data_facts import DataFacts
from tuner.storage.states import STARTS
from tuner.storage.storage import Storage
from tuner.tracking.tags import JOURNAL_FILE, TOKENIZER_FILE

_EPOCHS, _JOURNAL = "epochs", "journal"
_EPOCH = re.compile(r"[0-9]{4,9}")
_PERIOD_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
_BEAT_SECONDS = 5.0
_POLL_SECONDS = 1.0
_END_SECONDS = 10.0


class JournalMirror:
    """Sends the journal of this driver to storage, in a thread; made by `begin`.

    Args:
        storage: storage of the search.
        journal: journal of the search, open.
        number: number of the epoch that this driver has claimed in storage.

    Attributes:
        storage: storage of the search.
    """

    def __init__(self, storage: Storage, journal: Journal, number: int) -> None:
        self.storage = storage
        self._reason: str | None = None
        self._journal, self._number = journal, number
        self._search = journal.path.parent.name
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._sent = 0  # bytes of the journal
        self._segments = 0
        self._beat_at = time.monotonic()
        self._is_lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-mirror", daemon=True)

    @classmethod
    def begin(cls, storage: Storage, journal: Journal, on_wait: Wait) -> Self:
        """Claim a search in its storage, and begin to send its journal.

        Args:
            storage: storage of the search.
            journal: journal of the search, open.
            on_wait: called again and again while this waits whether another driver is heard.

        Raises:
            JournalInUse: if another driver runs the search.
            StorageError: if the storage cannot be used, or has a journal that went on elsewhere.
        """
        search = journal.path.parent.name
        number, text = _newest(storage)
        if number and _lives(storage, number, text, on_wait):
            raise _in_use(search, read_holder(number, text, 0.0))
        mirror = cls(storage, journal, number + 1)
        try:
            storage.create(f"{_EPOCHS}/{number + 1:04d}", mirror._text())
        except FileExistsError as error:
            raise _in_use(search, read_holder(*_newest(storage), 0.0)) from error
        try:
            there = mirrored(storage)
            if there is not None and not mirror._data(0).startswith(there):
                raise StorageError(
                    f"the journal of {search} went on in {storage.url} from another home, and "
                    f"{journal.path.parent} lacks that; to go on with it here, move this folder "
                    f"away and repeat the command"
                )
        except BaseException:
            with suppress(StorageError):
                storage.write(f"{_EPOCHS}/{number + 1:04d}", mirror._text(has_ended=True))
            raise
        mirror._thread.start()
        return mirror

    def end(self, seconds: float = _END_SECONDS) -> str | None:
        """Send what waits, and say in storage that this driver has ended.

        Args:
            seconds: longest wait.

        Returns:
            Why lines were not sent, in one sentence; None if all were, or another driver has
            claimed the search.
        """
        self._over.set()
        self._thread.join(seconds)
        if self._is_lost or self._sent == self._journal.size:
            return None
        reason = self._reason or f"the storage {self.storage.url} did not answer in time"
        return f"{reason}; it lacks the end of the journal, which a resumed search sends"

    @property
    def problem(self) -> str | None:
        """Why lines wait for the storage, in one sentence; None if it answers."""
        reason = self._reason
        later = "the search goes on, and sends what is missing when the storage answers again"
        return None if reason is None else f"{reason}; {later}"

    # the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _PERIOD_SECONDS
        while not self._over.wait(pause) and not self._is_lost:
            pause = (
                _PERIOD_SECONDS if self._try(self._send) else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            )
        until = time.monotonic() + _END_SECONDS
        while not self._is_lost and not self._try(self._finish) and time.monotonic() < until:
            time.sleep(min(_PERIOD_SECONDS, _END_SECONDS))

    def _try(self, action: Callable[[], None]) -> bool:
        """Do an action; return True if it is done, else note why not."""
        try:
            action()
        except Replaced:
            self._is_lost = True
        except (StorageError, OSError) as error:
            self._reason = str(error)
            return False
        self._reason = None
        return True

    def _send(self) -> None:
        """Send complete lines that are on the disk, after a look whether this driver still may."""
        size = self._journal.size
        is_due = time.monotonic() - self._beat_at > _BEAT_SECONDS
        if size == self._sent and not is_due:
            return
        self._check()
        if is_due:
            self._write_epoch()
        if size > self._sent:
            name = f"{_JOURNAL}/{self._number:04d}/{self._segments + 1:08d}.jsonl"
            self.storage.write(name, self._data(self._sent, size))
            self._segments, self._sent = self._segments + 1, size
            if self._segments == 1:
                self._delete_earlier()

    def _finish(self) -> None:
        self._send()
        self._write_epoch(has_ended=True)

    def _check(self) -> None:
        """Raise Replaced, here and from the journal, if another driver has claimed the search."""
        try:
            text = self.storage.read(f"{_EPOCHS}/{self._number + 1:04d}")
        except FileNotFoundError:
            return
        by = read_holder(self._number + 1, text, 0.0).text
        self._journal.lose(by)
        raise Replaced(self._search, by)

    def _delete_earlier(self) -> None:
        """Delete the journals of earlier drivers: this one has their lines."""
        for number in _numbers(self.storage, _JOURNAL):
            if number < self._number:
                self.storage.delete_folder(f"{_JOURNAL}/{number:04d}")

    def _write_epoch(self, *, has_ended: bool = False) -> None:
        self.storage.write(f"{_EPOCHS}/{self._number:04d}", self._text(has_ended=has_ended))
        self._beat_at = time.monotonic()

    def _text(self, *, has_ended: bool = False) -> bytes:
        values: dict[str, Any] = {
            "host": socket.gethostname(), "pid": os.getpid(), "boot": _process_space(),
            "since": self._since, "ended": has_ended, "beat": time.time_ns(),
        }  # fmt: skip
        return json.dumps(values).encode()

    def _data(self, begin: int, end: int | None = None) -> bytes:
        """Return bytes of the journal, from one position to another."""
        with self._journal.path.open("rb") as file:
            file.seek(begin)
            return file.read((self._journal.size if end is None else end) - begin)


def mirrored(storage: Storage) -> bytes | None:
    """Return the journal in a storage, up to its last complete line; None if there is none.

    Raises:
        StorageError: if the storage does not answer, or refuses.
    """
    for epoch_number in reversed(_numbers(storage, _JOURNAL)):
        folder = f"{_JOURNAL}/{epoch_number:04d}"
        names = [name for name in storage.names(folder) if name.endswith(".jsonl")]
        # a segment is sent when the one before it is there
        in_order = [f"{number:08d}.jsonl" for number in range(1, len(names) + 1)]
        present = [f"{folder}/{a}" for a, b in zip(in_order, names, strict=True) if a == b]
        if present:
            try:
                data = b"".join(storage.read_all(present))
            except FileNotFoundError as error:
                raise StorageError(
                    f"another driver replaced the journal in {storage.url} while it was read; "
                    f"repeat the command"
                ) from error
            return data[: data.rfind(b"\n") + 1]
    return None


def restore(url: str | None, home: Home, name: str, say: Callable[[str], None]) -> None:
    """Copy the journal of a search from storage, if no such search has begun in the home.

    Args:
        url: URL of `engine.storage`; None without one.
        home: home of the search.
        name: name of the search.
        say: called with one sentence if the journal is copied.

    Raises:
        StorageError: if the storage cannot be used.
        JournalError: if the folder of the search is in use.
    """
    folder = home.search(name)
    if url is None or begun_search(folder) is not None:
        return
    Storage(url).check()
    storage = Storage(url).at(name)
    data = mirrored(storage)
    if not data:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if begun_search(folder) is None:
            with replacing(folder / JOURNAL_FILE) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            events = counted(data.count(b"\n"), "event")
            say(f"{url} has {name}: its journal, {events}, was copied to {folder}")
    home.starts.mkdir(exist_ok=True)
    for start in storage.names(STARTS):
        if not (home.starts / start).exists():
            storage.download(f"{STARTS}/{start}", home.starts / start)


@contextmanager
def mirroring(
    url: str | None,
    journal: Journal,
    home: Home,
    facts: DataFacts,
    on_wait: Wait,
    say: Callable[[str], None],
) -> Iterator[JournalMirror | None]:
    """Send the journal of a search to storage until the block ends.

    Args:
        url: URL of `engine.storage`; None without one.
        journal: journal of the search, open until after the block.
        home: home of the search.
        facts: facts of its data; what trials start from is sent first.
        on_wait: as for `JournalMirror.begin`.
        say: called with one sentence if lines could not be sent.

    Yields:
        The mirror; None without storage.

    Raises:
        JournalInUse, StorageError: as `JournalMirror.begin`.
    """
    if url is None:
        yield None
        return
    storage = Storage(url).at(journal.path.parent.name)
    if facts.init_from is not None:
        _send_starts(storage, home, facts.init_from.sha256, facts.tokenizer_fingerprint)
    mirror = JournalMirror.begin(storage, journal, on_wait)
    try:
        yield mirror
    finally:
        if problem := mirror.end():
            say(problem)


def _send_starts(storage: Storage, home: Home, weights: str, tokenizer: str) -> None:
    """Send the weights that trials start from, and their tokenizer, unless the storage has them."""
    present = storage.names(STARTS)
    for name in (f"{weights}.safetensors", f"{tokenizer}.{TOKENIZER_FILE}"):
        if name not in present and (home.starts / name).is_file():
            storage.upload(home.starts / name, f"{STARTS}/{name}")


def _newest(storage: Storage) -> tuple[int, bytes]:
    """Return the number of the newest epoch in a storage, and its text; 0 if there is none."""
    number = max(_numbers(storage, _EPOCHS), default=0)
    text = b""
    if number:
        with suppress(FileNotFoundError):
            text = storage.read(f"{_EPOCHS}/{number:04d}")
    return number, text


def _numbers(storage: Storage, folder: str) -> list[int]:
    """Return the epochs of which a folder has a file or a folder, in order."""
    return sorted(int(name) for name in storage.names(folder) if _EPOCH.fullmatch(name))


def _lives(storage: Storage, number: int, text: bytes, on_wait: Wait) -> bool:
    """Return True if the driver of an epoch is heard; wait for its heartbeat if it may live."""
    holder = read_holder(number, text, 0.0)
    if holder.has_ended or _is_dead(holder):
        return False
    until = time.monotonic() + epoch.PATIENCE_SECONDS
    while time.monotonic() < until:
        on_wait(holder)
        time.sleep(_POLL_SECONDS)
        now = _newest(storage)
        if now != (number, text):
            return not read_holder(*now, 0.0).has_ended
    return False


def _is_dead(holder: Holder) -> bool:
    """Return True if a driver ran here, and its process has ended."""
    if holder.boot != _process_space():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _process_space() -> str:
    """Name the processes among which a process id means one: this start of this machine's kernel.

    Containers share the kernel, and each has ids of its own.
    """
    try:
        return f"{boot_id()}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - no Path
    except OSError:
        return boot_id()


def _in_use(search: str, holder: Holder) -> JournalInUse:
    return JournalInUse(
        f"the search {search} is being run by {holder.text}; wait for it or stop it first"
    )
