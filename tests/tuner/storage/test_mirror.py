"""The journal in storage: lines in order, one driver at a time, and back from there."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.manual_clock import ManualClock
from tests.tuner.simulated_search import FACTS
from tests.tuner.storage.broken import fresh_url, switched
from tuner.errors import JournalInUse, Replaced, StorageError
from tuner.home.home import Home
from tuner.journal.events import SearchBegun, SessionEnded
from tuner.journal.follower import Follower
from tuner.journal.journal import JOURNAL_FILE, Journal, read_journal
from tuner.lease.holder import Holder
from tuner.lease.lease import Wait
from tuner.space.space import SearchSpace
from tuner.storage.bucket_leases import BucketLeases
from tuner.storage.mirror import JournalMirror, mirrored, restore, send_starts
from tuner.storage.storage import Storage

_END_SECONDS = 0.2


@pytest.fixture
def url() -> str:
    return fresh_url()


class Driver:
    """A journal with a mirror, in a home of its own."""

    def __init__(self, url: str, home: Path, on_wait: Wait) -> None:
        self.waits: list[str] = []
        self.journal = Journal.open(home / "searches" / "lm-1")
        if not self.journal.events:
            self.journal.append(SearchBegun(SearchSpace(name="lm"), "", FACTS))
        storage = Storage(f"{url}/lm-1")
        self.switch = switched(storage)
        self.clock = ManualClock()

        def wait(holder: Holder) -> None:
            self.waits.append(holder.text)
            on_wait(holder)

        try:
            self.mirror = JournalMirror.claim(storage, self.journal, wait, self.clock)
        except BaseException:
            self.journal.close()
            raise
        self.follower = Follower(
            self.mirror, self.journal.feed(), clock=self.clock,
            may_write=lambda: not self.mirror.lease.is_lost,
        ).start()  # fmt: skip

    def note(self, *numbers: int) -> None:
        for number in numbers:
            self.journal.append(SessionEnded("interrupted", {"number": number}))

    def end(self) -> str | None:
        problem = self.follower.close(_END_SECONDS)
        self.journal.close()
        return problem

    def killed(self) -> None:
        """End without a word: the thread writes nothing more, and the process is gone."""
        self.switch.is_down = True
        self.follower.close(_END_SECONDS)
        self.journal.close()


@pytest.fixture
def drive(url: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def make(home: str = "one", on_wait: Wait = lambda holder: None) -> Driver:
        drivers.append(Driver(url, tmp_path / home, on_wait))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.killed()


def until(driver: Driver, condition: Callable[[], Any]) -> None:
    """Let the clock of a driver advance until a condition holds."""
    while not condition():
        assert driver.clock.slept < 500
        driver.clock.sleep(0.5)
        driver.follower.flush(0.0)
        threading.Event().wait(0.002)  # other threads run


def copy_in(url: str) -> bytes | None:
    return mirrored(Storage(f"{url}/lm-1"))


def data(driver: Driver) -> bytes:
    return driver.journal.path.read_bytes()


def as_of(url: str, number: int, **values: Any) -> None:
    """Change what an epoch says, as if another process had claimed it."""
    storage = Storage(f"{url}/lm-1")
    text = json.loads(storage.read(f"epochs/{number:04d}"))
    storage.write(f"epochs/{number:04d}", json.dumps({**text, **values}).encode())


def test_journal_is_sent_and_restored(
    url: str, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    one = drive()
    until(one, lambda: copy_in(url) == data(one))
    one.note(1, 2)
    until(one, lambda: copy_in(url) == data(one))
    one.note(3)
    assert one.end() is None
    assert copy_in(url) == data(one)
    names = Storage(f"{url}/lm-1").names("journal/0001")
    assert names == [f"{number:08d}.jsonl" for number in range(1, len(names) + 1)]
    assert 2 <= len(names) <= 4

    said: list[str] = []
    home = Home(tmp_path / "two", "")
    home.root.mkdir()
    restore(url, home, "lm-1", said.append)
    restore(url, home, "lm-1", said.append)  # it has begun here: nothing is copied
    restore(url, home, "lm-9", said.append)
    restore(None, home, "lm-8", said.append)
    assert said == [f"{url} has lm-1: its journal, 4 events, was copied to {home.search('lm-1')}"]
    assert read_journal(home.search("lm-1")) == read_journal(tmp_path / "one" / "searches" / "lm-1")
    assert not home.search("lm-9").exists()

    two = drive("two")  # the first has said that it ended: nobody waits
    assert two.waits == []
    two.note(4)
    assert two.end() is None
    assert copy_in(url) == data(two)
    storage = Storage(f"{url}/lm-1")
    assert storage.names("journal") == ["0002"]  # it has the lines of the first as well
    assert [json.loads(storage.read(f"epochs/{n}"))["has_ended"] for n in ("0001", "0002")] == [
        True
    ] * 2


def test_driver_that_is_replaced_writes_nothing_more(
    url: str, drive: Callable[..., Driver], tmp_path: Path
) -> None:
    """It was cut off, and another went on from the storage; then the storage answers it again."""
    one = drive()
    one.note(1)
    until(one, lambda: copy_in(url) == data(one))
    one.switch.is_down = True
    one.note(2)
    as_of(url, 1, host="gpu-7", boot="another")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    restored = tmp_path / "two" / "searches" / "lm-1"
    shutil.rmtree(restored / "epochs")
    (restored / JOURNAL_FILE).write_bytes(copy_in(url) or b"")
    two = drive("two")
    assert two.waits
    assert "on gpu-7, since" in two.waits[0]
    two.note(3)
    until(two, lambda: copy_in(url) == data(two))
    before = data(one)
    one.switch.is_down = False
    until(one, lambda: not one.journal.may_write())
    with pytest.raises(Replaced, match=rf"process {os.getpid()} on .*, has taken over .* lm-1"):
        one.note(4)
    assert one.follower.close(_END_SECONDS) is None
    assert data(one) == before
    # even what was under way reaches a folder that nobody reads
    Storage(f"{url}/lm-1").write("journal/0001/00000003.jsonl", b"late\n")
    assert two.end() is None
    assert copy_in(url) == data(two)
    with pytest.raises(Replaced):
        one.journal.close()
    with pytest.raises(StorageError, match=r"went on in .* from another home.* move this folder"):
        drive("one")
    assert copy_in(url) == data(two)


def test_driver_that_is_heard_is_not_replaced(url: str, drive: Callable[..., Driver]) -> None:
    one = drive()
    with pytest.raises(JournalInUse, match=rf"is being run by process {os.getpid()} on"):
        drive("two", lambda holder: one.mirror.lease.refresh())
    one.note(1)
    assert one.journal.may_write()
    assert one.end() is None


def test_driver_whose_process_is_gone_is_replaced_at_once(
    url: str, drive: Callable[..., Driver]
) -> None:
    """As after `kill -9` on this machine; elsewhere it is listened for."""
    drive().killed()
    as_of(url, 1, pid=2**22 + 1)  # no process has such an id
    two = drive()
    assert two.waits == []
    two.killed()
    as_of(url, 2, pid=2**22 + 1, boot="another")
    three = drive()
    assert three.waits
    assert three.end() is None


def test_of_two_drivers_that_claim_at_one_time_one_is_refused(
    url: str, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    drive()
    newest, looks = BucketLeases.newest, []

    def look(store: BucketLeases) -> Holder | None:
        looks.append(store)
        return newest(store) if len(looks) > 1 else None

    monkeypatch.setattr(BucketLeases, "newest", look)
    with pytest.raises(JournalInUse, match=rf"is being run by process {os.getpid()} on"):
        drive("two")


def test_storage_that_is_down_is_said_and_gets_all_later(
    url: str, drive: Callable[..., Driver]
) -> None:
    one = drive()
    until(one, lambda: copy_in(url) == data(one))
    one.switch.is_down = True
    one.note(1, 2)
    until(one, lambda: one.follower.problem)
    assert one.follower.problem == (
        f"the storage {url}/lm-1 does not answer: it was switched off; the search goes on, and "
        f"sends what is missing when the storage answers again"
    )
    one.switch.is_down = False
    until(one, lambda: one.follower.problem is None)
    assert copy_in(url) == data(one)
    one.switch.is_down = True
    one.note(3)
    assert "it was switched off" in (one.end() or "")


def test_segment_that_was_cut_ends_the_journal(url: str, drive: Callable[..., Driver]) -> None:
    """A folder, unlike a bucket, may have part of a file."""
    one = drive()
    one.note(1)
    assert one.end() is None
    whole = copy_in(url)
    storage = Storage(f"{url}/lm-1")
    number = len(storage.names("journal/0001"))
    storage.write(f"journal/0001/{number + 1:08d}.jsonl", b'{"event":"rep')
    assert copy_in(url) == whole
    storage.write(f"journal/0001/{number + 3:08d}.jsonl", b"after a gap\n")
    assert copy_in(url) == whole


def test_weights_to_start_from_are_in_storage(url: str, tmp_path: Path) -> None:
    from dataclasses import replace

    from model.spec.trial import InitFrom

    facts = replace(FACTS, init_from=InitFrom(sha256="a" * 64))
    one, two = Home(tmp_path / "one", ""), Home(tmp_path / "two", "")
    one.starts.mkdir(parents=True)
    for name in (f"{'a' * 64}.safetensors", "tokenizer.tokenizer.json", "other.safetensors"):
        (one.starts / name).write_text(name)
    journal = Journal.open(one.search("lm-1"))
    journal.append(SearchBegun(SearchSpace(name="lm"), "", facts))
    storage = Storage(f"{url}/lm-1")
    send_starts(storage, one, facts)
    mirror = JournalMirror.claim(storage, journal, lambda holder: None)
    mirror.send()
    mirror.close()
    journal.close()
    restore(url, two, "lm-1", lambda text: None)
    names = sorted(path.name for path in two.starts.iterdir())
    assert names == [f"{'a' * 64}.safetensors", "tokenizer.tokenizer.json"]
