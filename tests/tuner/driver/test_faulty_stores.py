"""Faults and kills at every call of a store: in the end it has the search exactly once."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.tuner.driver.driven_search import Crash, Session, kill
from tests.tuner.driver.memory_store import MemoryStore
from tests.tuner.driver.test_crashes import SEARCHES
from tests.tuner.manual_clock import ManualClock
from tests.tuner.simulated_search import space_of
from tests.tuner.storage.broken import fresh_url
from tests.tuner.tracking.recorded import stored_steps
from tuner.errors import StorageError
from tuner.home.home import Home
from tuner.journal import journal as journal_module
from tuner.journal.events import SessionEnded
from tuner.journal.fold import Search
from tuner.journal.follower import Follower
from tuner.journal.journal import JOURNAL_FILE, Feed, Journal, JournalTail, read_entries
from tuner.journal.lines import Entry
from tuner.storage.mirror import JournalMirror, mirrored
from tuner.storage.storage import Storage
from tuner.tracking import record as record_module
from tuner.tracking.metrics import SystemMetrics
from tuner.tracking.parent import SearchFiles
from tuner.tracking.projection import MlflowProjection
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.store import open_client
from tuner.tracking.tags import SPACE_FILE, Tag

_MOST_TRIES = 20


class Fault(Enum):
    """What happens at one call of a store."""

    REFUSED = "refused"  # nothing is written
    LOST = "lost"  # it is written, and the answer is lost
    KILLED_BEFORE = "killed before"  # the process ends, and nothing is written
    KILLED_AFTER = "killed after"  # it is written, and the process ends

    @property
    def is_kill(self) -> bool:
        return self in {Fault.KILLED_BEFORE, Fault.KILLED_AFTER}


class Faulty:
    """A client of a store, one of whose calls fails.

    Args:
        client: the client.
        error: what a call raises that is refused, or whose answer is lost.
        fault: what happens; None for nothing.
        at: number of the call that fails.

    Attributes:
        num_calls: number of calls so far.
    """

    def __init__(
        self, client: Any, error: Exception, fault: Fault | None = None, at: int = 0
    ) -> None:
        self._client, self._error, self._fault, self._at = client, error, fault, at
        self._is_dead = False
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._client, name))

    @contextmanager
    def open(self, path: str, mode: str) -> Iterator[io.BytesIO]:
        """Write a file when it is closed, as buckets do."""
        yield (buffer := io.BytesIO())

        def write() -> None:
            with self._client.open(path, mode) as file:
                file.write(buffer.getvalue())

        self._call(write)

    def _call(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._is_dead:
            raise Crash
        self.num_calls += 1
        fault = self._fault if self.num_calls == self._at else None
        if fault is None:
            return call(*arguments, **options)
        if fault in {Fault.LOST, Fault.KILLED_AFTER}:
            with suppress(Exception):  # an error is lost, too
                call(*arguments, **options)
        self._is_dead = fault.is_kill
        raise Crash if fault.is_kill else self._error


class Turns:
    """The entries of a journal, some with each call."""

    def __init__(self, turns: Sequence[Sequence[Entry]]) -> None:
        self._turns = list(turns)

    def read(self) -> Sequence[Entry]:
        return self._turns.pop(0) if self._turns else []

    def wait(self, seconds: float, clock: Any) -> None:
        raise AssertionError("nobody waits here")

    def wake(self) -> None:
        raise AssertionError("nobody waits here")


@dataclass(frozen=True)
class Recorded:
    """A search of two sessions.

    Attributes:
        turns: what its followers heard after each turn.
        lines: its journal.
    """

    turns: Sequence[Sequence[Entry]]
    lines: Sequence[bytes]

    @property
    def search(self) -> Search:
        """The search at its end."""
        return Search.of_name([each.event for turn in self.turns for each in turn], "lm-1")

    def write(self, folder: Path, count: int) -> None:
        """Write the journal up to a number of turns."""
        num_lines = sum(map(len, self.turns[:count]))
        (folder / JOURNAL_FILE).write_bytes(b"".join(self.lines[:num_lines]))


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module.os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    space = space_of(folder, *SEARCHES["asha"])
    turns: list[Sequence[Entry]] = []
    for most in (6, None):
        session = Session(folder / "lm-1", space)
        feed = session.journal.feed()
        feed._count = sum(map(len, turns))  # it heard of the first session
        session.run(most, partial(_note_turn, turns, feed))
        _note_turn(turns, feed)
        session.end()
    assert [entry for turn in turns for entry in turn] == read_entries(folder / "lm-1")
    lines = (folder / "lm-1" / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    return Recorded(turns, lines)


def _note_turn(turns: list[Sequence[Entry]], feed: Feed) -> None:
    turns.append(feed.read())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, "memory:")
    home.search("lm-1").mkdir(parents=True)
    return home


def projection_of(
    home: Home, client: Any, *, resume: bool, uri: str = "memory:"
) -> MlflowProjection:
    """Open the record of a search."""
    settings = RunSettings(uri, home.artifacts, "lm", "lm-1", {Tag.SAMPLER: "random"}, resume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_module, "open_client", lambda uri: client)
        files = SearchFiles(home.search("lm-1"), home.starts, lambda search: None)
        projection = MlflowProjection(settings, files)
        projection.open()
        return projection


def level(follower: Follower) -> None:
    """Let a follower take and send all that there is."""
    for _ in range(_MOST_TRIES):
        if follower._step():
            return
    raise AssertionError(follower.reason)


def record(
    recorded: Recorded, home: Home, client: Any, faulty: Faulty, uri: str = "memory:"
) -> int:
    """Record a search, after each of its turns; if the process is killed, in another one.

    Returns:
        Number of calls that open the record.
    """
    folder, num_opening = home.search("lm-1"), 0
    try:
        projection = projection_of(home, faulty, resume=False, uri=uri)
        num_opening = faulty.num_calls
        follower = Follower(projection, Turns(recorded.turns))
        for count, turn in enumerate(recorded.turns, start=1):
            if isinstance(turn[-1].event, SessionEnded):
                recorded.write(folder, count)  # which is attached
            projection.sample(SystemMetrics({"system/gpu": 0.5}, 7))
            follower._step()
        level(follower)
    except Crash:
        recorded.write(folder, len(recorded.turns))
        again = projection_of(home, client, resume=True, uri=uri)
        level(Follower(again, JournalTail(folder)))
    return num_opening


def check_record(recorded: Recorded, store: MemoryStore) -> None:
    """Check that the store has one run of each trial, each report once, and the outcomes."""
    search = recorded.search
    (parent,) = [run for run in store.active if run.tags[Tag.KIND] == "search"]
    children = [run for run in store.active if run.tags[Tag.KIND] == "trial"]
    trials = {int(run.tags[Tag.TRIAL]): run for run in children}
    assert len(children) == len(trials)
    assert trials.keys() == search.board.trials.keys()
    for number, trial in search.board.trials.items():
        run = trials[number]
        assert run.steps("tokens") == [report.step for report in trial.reports]
        assert run.steps("val_loss") == [report.step for report in trial.reports]
        assert run.tags[Tag.STATUS] == str(trial.outcome)
        assert run.params["seed"] == str(trial.spec.seed)
        assert run.files["spec.json"] == trial.spec.model_dump_json(indent=2).encode()
        assert run.state != "RUNNING"
    best = search.board.best
    assert best is not None
    assert parent.tags[Tag.STATUS] == "finished"
    assert parent.tags[Tag.BEST] == trials[best.number].run_id
    assert parent.tags[Tag.JOURNAL] == recorded.turns[-1][-1].digest
    assert parent.files[JOURNAL_FILE] == b"".join(recorded.lines)
    assert parent.files[SPACE_FILE] == search.space_text.encode()


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault)
def test_fault_at_every_call_of_mlflow_leaves_each_report_once(
    recorded: Recorded, home: Home, fault: Fault
) -> None:
    error = ConnectionError("it was switched off")
    store = MemoryStore()
    undisturbed = Faulty(store, error)
    num_opening = record(recorded, home, store, undisturbed)
    check_record(recorded, store)
    first = 1 if fault.is_kill else num_opening + 1  # a search does not begin without its store
    if fault is Fault.LOST:
        first -= 1  # but with a store whose answer to the last call is lost: it made the run
    assert undisturbed.num_calls > 60
    for at in range(first, undisturbed.num_calls + 1):
        store = MemoryStore()
        record(recorded, home, store, Faulty(store, error, fault, at))
        check_record(recorded, store)


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault)
def test_fault_at_some_calls_of_a_real_store_leaves_each_report_once(
    recorded: Recorded, home: Home, fault: Fault, store: str, empty_store: Path
) -> None:
    search = recorded.search
    for at in (8, 21, 47, 60):
        shutil.copy(empty_store, store.removeprefix("sqlite:///"))
        client = open_client(store)
        faulty = Faulty(client, ConnectionError("it was switched off"), fault, at)
        record(recorded, home, client, faulty, store)
        reader = Record(store)
        trials = reader.trials(reader.search("lm-1"))
        assert [trial.number for trial in trials] == [*search.board.trials]
        for trial in trials:
            expected = search.board.trials[trial.number]
            assert stored_steps(store, trial.number) == [r.step for r in expected.reports]
            assert trial.outcome == expected.outcome


def test_run_of_the_search_says_how_far_it_is(recorded: Recorded, home: Home) -> None:
    """Together with the load of the workers, so that it costs no request of its own."""
    store = MemoryStore()
    projection = projection_of(home, store, resume=False)
    follower = Follower(projection, Turns(recorded.turns))
    for count in range(1, len(recorded.turns) + 1):
        recorded.write(home.search("lm-1"), count)
        projection.sample(SystemMetrics({"system/worker_0/memory_megabytes": 1.0}, 7))
        follower._step()
        search = follower._search
        assert search is not None
        board, parent = search.board, store.active[0]
        progress = {name: value for name, *_, value in parent.metrics}
        if search.end is not None:
            continue
        assert progress["system/worker_0/memory_megabytes"] == "1.0"
        assert progress["progress/trials_ended"] == repr(float(len(board.ended)))
        assert parent.tags["trials_done"] == f"{len(board.ended)} of {board.num_trials}"
        if board.best is not None:
            best = board.value(board.best)
            assert progress["progress/best_val_loss"] == repr(best)
            assert parent.tags["best"] == f"val_loss {best:.4f} in trial {board.best.number}"
    assert search.board.num_trials == len(search.board.trials)


# the bucket ---------------------------------------------------------------------------------


def mirror(folder: Path, url: str, turns: Sequence[Sequence[Entry]], **fault: Any) -> int:
    """Send a journal to a bucket, after each turn of its search; return the number of calls."""
    journal = Journal.open(folder)
    storage, lease = Storage(f"{url}/lm-1"), None
    faulty = Faulty(fsspec.filesystem("memory"), ConnectionError("it was switched off"), **fault)
    storage.__dict__["_place"] = faulty, "/" + storage.url.partition("://")[2]
    known = len(journal.events)
    rest = [turn[max(0, known - begin) :] for begin, turn in zip(begins(turns), turns, strict=True)]
    try:
        for _ in range(2):  # a storage that refuses ends the start, and the user tries again
            with suppress(StorageError):
                projection = JournalMirror.claim(storage, journal, lambda _: None, ManualClock())
                lease = projection.lease
                break
        follower = Follower(projection, journal.feed())
        for turn in rest:
            with journal.together():
                for entry in turn:
                    journal.append(entry.event)
            follower._step()
        level(follower)
        projection.close()
        journal.close()
    except Crash:
        if lease is not None:
            lease._is_over.set()  # its thread is gone
        kill(journal)
        raise
    return faulty.num_calls


def begins(turns: Sequence[Sequence[Entry]]) -> list[int]:
    return list(itertools.accumulate(map(len, turns[:-1]), initial=0))


@pytest.mark.slow
@pytest.mark.parametrize("fault", Fault)
def test_fault_at_every_call_of_the_bucket_leaves_the_journal_there(
    recorded: Recorded, fault: Fault, tmp_path: Path
) -> None:
    turns = recorded.turns
    num_calls = mirror(tmp_path / "0", fresh_url(), turns)
    assert num_calls > len(turns)
    for at in range(1, num_calls + 1):
        folder, url = tmp_path / str(at) / "lm-1", fresh_url()
        try:
            mirror(folder, url, turns, fault=fault, at=at)
            is_killed = False
        except Crash:
            is_killed = True
            mirror(folder, url, turns)
        assert is_killed == fault.is_kill, at
        storage = Storage(f"{url}/lm-1")
        data = (folder / JOURNAL_FILE).read_bytes()
        assert mirrored(storage) == data
        assert data.count(b"\n") == sum(map(len, turns))
        assert len(storage.names("journal")) == 1
