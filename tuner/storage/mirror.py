"""The journal of a running search in its storage, and back from there.

    {url}/epochs/0002                    the driver that claimed it, with its heartbeat
    {url}/journal/0002/00000001.jsonl    lines of the journal of that driver, in order

Only one driver can create an epoch. Each driver sends its journal to a folder of its own, all
earlier lines first; the newest folder is the journal. So what a driver still sends that was cut off
for a while, and does not know yet that it was replaced, reaches a folder that nobody reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Self

from typing_extensions import override

from model.files import replacing
from tuner.clock import CLOCK, SystemClock
from tuner.errors import StorageError
from tuner.home.home import Home
from tuner.journal.follower import Follower, Projection
from tuner.journal.journal import JOURNAL_FILE, Journal, read_journal
from tuner.lease.folder import locked
from tuner.lease.lease import Lease, Wait, epoch_name, epochs_of
from tuner.space.data_facts import DataFacts
from tuner.storage.bucket_leases import BucketLeases
from tuner.storage.states import STARTS, TOKENIZER_FILE
from tuner.storage.storage import Storage
from tuner.texts.formatting import counted

_JOURNAL = "journal"


class JournalMirror(Projection):
    """Sends the journal of this driver to storage; made by `claim`.

    Args:
        storage: storage of the search.
        journal: journal of the search, open.
        lease: lease of the search in storage.

    Attributes:
        storage: storage of the search.
        lease: lease of the search in storage.
    """

    name = "the storage"
    period_seconds = 1.0

    def __init__(self, storage: Storage, journal: Journal, lease: Lease) -> None:
        self.storage, self.lease = storage, lease
        self._journal = journal
        self._sent = 0  # bytes of the journal
        self._segments = 0

    @classmethod
    def claim(
        cls, storage: Storage, journal: Journal, on_wait: Wait | None, clock: SystemClock = CLOCK
    ) -> Self:
        """Claim a search in its storage.

        Args:
            storage: storage of the search.
            journal: journal of the search, open.
            on_wait: as for `Lease.claim`.
            clock: clock by which this waits.

        Raises:
            JournalInUse: if another driver runs the search.
            StorageError: if the storage cannot be used, or has a journal that went on elsewhere.
        """
        search = journal.path.parent.name
        leases = BucketLeases(storage)
        lease = Lease.claim(leases, search, on_wait, clock, on_replaced=journal.lose)
        mirror = cls(storage, journal, lease)
        try:
            sent = mirrored(storage)
            if sent is not None and not mirror._data(0).startswith(sent):
                raise StorageError(
                    f"the journal of {search} went on in {storage.url} from another home, and "
                    f"{journal.path.parent} lacks that; to go on with it here, move this folder "
                    f"away and repeat the command"
                )
        except BaseException:
            lease.release()
            raise
        return mirror

    @override
    def send(self) -> None:
        """Send complete lines that are on the disk, after a look whether this driver still may."""
        size = self._journal.size
        if size == self._sent:
            return
        self.lease.check()
        name = f"{_JOURNAL}/{epoch_name(self.lease.epoch)}/{self._segments + 1:08d}.jsonl"
        self.storage.write(name, self._data(self._sent, size))
        self._segments, self._sent = self._segments + 1, size
        self.progress += 1
        if self._segments == 1:
            self._delete_earlier()

    @override
    def problem(self, reason: str) -> str:
        later = "the search goes on, and sends what is missing when the storage answers again"
        return f"{reason}; {later}"

    @override
    def close(self) -> None:
        self.lease.release()

    def _delete_earlier(self) -> None:
        """Delete the journals of earlier drivers: this one has their lines."""
        for number in epochs_of(self.storage.names(_JOURNAL)):
            if number < self.lease.epoch:
                self.storage.delete_folder(f"{_JOURNAL}/{epoch_name(number)}")

    def _data(self, begin: int, end: int | None = None) -> bytes:
        """Return bytes of the journal, from one position to another."""
        with self._journal.path.open("rb") as file:
            file.seek(begin)
            return file.read((self._journal.size if end is None else end) - begin)


def begin_mirror(
    storage: Storage, home: Home, facts: DataFacts, journal: Journal, on_wait: Wait | None = None
) -> Follower:
    """Claim a search in its storage; send there what trials start from, and begin with the journal.

    Args:
        storage: storage of the search.
        home: home of the search.
        facts: facts of its data.
        journal: journal of the search, open.
        on_wait: as for `Lease.claim`.

    Raises:
        JournalInUse, StorageError: as for `JournalMirror.claim`.
    """
    send_starts(storage, home, facts)
    mirror = JournalMirror.claim(storage, journal, on_wait)
    return Follower(mirror, journal.feed(), may_write=lambda: not mirror.lease.is_lost).start()


def mirrored(storage: Storage) -> bytes | None:
    """Return the journal in a storage, up to its last complete line; None if there is none.

    Raises:
        StorageError: if the storage does not answer, or refuses.
    """
    for epoch in reversed(epochs_of(storage.names(_JOURNAL))):
        folder = f"{_JOURNAL}/{epoch_name(epoch)}"
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
    if url is None or read_journal(folder):
        return
    Storage(url).check()
    storage = Storage(url).at(name)
    data = mirrored(storage)
    if not data:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not read_journal(folder):
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


def send_starts(storage: Storage, home: Home, facts: DataFacts) -> None:
    """Send the weights that trials start from, and their tokenizer, unless the storage has them.

    Args:
        storage: storage of the search.
        home: home of the search.
        facts: facts of its data, which name the start.

    Raises:
        StorageError: if the storage cannot be used.
    """
    if facts.init_from is None:
        return
    present = storage.names(STARTS)
    weights, tokenizer = facts.init_from.sha256, facts.tokenizer_fingerprint
    for name in (f"{weights}.safetensors", f"{tokenizer}.{TOKENIZER_FILE}"):
        if name not in present and (home.starts / name).is_file():
            storage.upload(home.starts / name, f"{STARTS}/{name}")
