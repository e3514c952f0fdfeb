from __future__ import annotations

import io
import math
import shutil
import threading
import time
import zlib
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from model.checkpoints import checkpoint
from model.checkpoints.header import recorded_digest
from model.engine.report import Status
from model.spec.trial import InitFrom
from tests.conftest import MakeSpec
from tests.tuner.fault_injection import FaultyServer
from tests.tuner.manual_clock import SharedClock
from tests.tuner.simulated_search import FACTS
from tests.tuner.storage.broken import fresh_url
from tests.tuner.tracking.recorded import (
    ENVIRONMENT,
    SPACE,
    RecordedSearch,
    contents,
    report,
    states,
    stored_reports,
    stored_spec,
    stored_steps,
    wait_for,
)
from tuner.commands.maintenance.sync import print_synced
from tuner.driver import sync as module
from tuner.driver.sync import SyncResult, sync
from tuner.errors import (
    JournalError,
    JournalInUse,
    RecordError,
    StorageError,
    StoreError,
    TunerError,
)
from tuner.home.home import Home
from tuner.journal.events import SessionBegun, SessionEnded
from tuner.journal.follower import Cursor, Follower
from tuner.journal.journal import JOURNAL_FILE, Journal, read_search
from tuner.storage.mirror import mirrored
from tuner.storage.storage import Storage
from tuner.summaries.search_table import trials_of
from tuner.tracking.projection import CURSOR
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.runs import Runs, RunSettings, RunStart
from tuner.tracking.tags import CHECKPOINT_FILE, Tag
from tuner.trained.recorded_trials import journaled

TAGS = {"sampler": "tpe", "scheduler": "asha", "seed": "3", "tuner.metric": "val_loss"}


@pytest.fixture(autouse=True)
def without_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model and the report have their own tests: the trials here have no weights."""
    monkeypatch.setattr(module, "_publish", lambda *_: ())


@pytest.fixture
def home(store: str, tmp_path: Path) -> Home:
    return Home(tmp_path, store)


def session(home: Home, **options: Any) -> RecordedSearch:
    """A session whose driver is killed, or has no store, unless it is followed."""
    return RecordedSearch(home, **{"is_followed": False, **options})


def whole_search(home: Home, make_spec: MakeSpec, **options: Any) -> None:
    search = session(home, **options)
    start = options.get("facts", FACTS).init_from
    specs = [make_spec(seed=n).model_copy(update={"init_from": start}) for n in range(2)]
    search.begin(0, specs[0])
    search.report(0, report(4, 1.5), report(8, 1.5))
    search.begin(1, specs[1], parent=0)
    diverged = report(5, math.nan, Status.DIVERGED)
    search.report(1, report(4, 1.5), diverged, outcome="diverged")
    search.report(0, report(12, 1.5, Status.FINISHED), outcome="finished")
    search.finish(best=0, best_val_loss=1.5)


FILES = ("search_space.yaml", "journal.jsonl")


def test_sync_sends_a_search_that_the_store_never_saw(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    whole_search(home, make_spec)
    assert sync(home, "lm-1") == SyncResult(2, 30, 3, FILES)
    record = Record(store)
    search = record.search("lm-1")
    assert states(record) == [(0, "finished", "FINISHED"), (1, "diverged", "FAILED")]
    first, second = record.trials(search)
    assert second.parent == 0
    assert stored_spec(record, second) == make_spec(seed=1)
    assert second.environment == ENVIRONMENT
    reports = stored_reports(record, second)
    assert [(step, str(m["val_loss"])) for step, m in reports.items()] == [(4, "1.5"), (5, "nan")]
    assert (search.status, search.best_run) == ("finished", first.run_id)
    assert search.metrics == {"best_val_loss": 1.5}
    assert TAGS.items() <= search.tags.items()
    assert Tag.INIT_FROM not in search.tags
    assert record._text(search.run_id, "search_space.yaml") == "name: lm\n"

    before = contents(store)
    assert sync(home, "lm-1").description == "nothing was missing"
    assert contents(store) == before
    check_tables(home, record, search)


def check_tables(home: Home, record: Record, search: SearchRecord) -> None:
    """The trials of a journal are those that MLflow reads, apart from what no table shows."""
    known = journaled(home, search)
    assert known is not None
    trials = record.trials(search)
    hidden = {"checkpoint_tokens": None}
    for ours, theirs in zip(trials_of(record, search, known), trials, strict=True):
        for name, value in {**asdict(theirs), **hidden}.items():
            assert str(getattr(ours, name)) == str(_sorted_as(value, getattr(ours, name))), name
    older = replace(search, tags={**search.tags, Tag.JOURNAL: "another"})
    assert journaled(home, older) is None
    assert repr(trials_of(record, search, None)) == repr(trials)


def _sorted_as(value: Any, other: Any) -> Any:
    """A dictionary in the order of another one; NaN, which equals nothing, is compared as text."""
    if not isinstance(value, dict):
        return value
    assert value.keys() == other.keys()
    return {name: value[name] for name in other}


def test_sync_sends_a_warm_started_search(home: Home, store: str, make_spec: MakeSpec) -> None:
    """Its run says from what it started, as if its driver had recorded it."""
    start = InitFrom(sha256="5" * 64, optimizer_steps=12)
    facts, text = replace(FACTS, init_from=start), "trial 1 of lm-0 (run 0a0a0a0a)"
    whole_search(home, make_spec, facts=facts, start=text)
    search = read_search(home.search("lm-1"))
    assert search is not None
    assert search.facts == replace(FACTS, init_from=start)
    assert sync(home, "lm-1") == SyncResult(2, 30, 3, FILES)
    record = Record(store)
    assert record.search("lm-1").tags[Tag.INIT_FROM] == text
    for trial in record.trials(record.search("lm-1")):
        assert stored_spec(record, trial).init_from == start
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())


def test_sync_has_nothing_to_send_after_a_search_without_faults(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """What a follower sends while a search runs is what it sends later."""
    whole_search(home, make_spec, is_followed=True)
    before = contents(store)
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())
    assert contents(store) == before
    tags = Record(store).search("lm-1").tags
    assert tags[Tag.TRIALS_DONE] == "2 of 2"
    assert tags[Tag.BEST_SO_FAR] == "val_loss 1.5000 in trial 0"
    assert tags[Tag.TIME_LEFT] == "0:00"


def test_sync_sends_the_search_again_to_a_wiped_store(
    home: Home, empty_store: Path, store: str, make_spec: MakeSpec
) -> None:
    """Whatever the cursor says of the store that is gone."""
    whole_search(home, make_spec, is_followed=True)
    shutil.copy(empty_store, store.removeprefix("sqlite:///"))
    assert sync(home, "lm-1") == SyncResult(2, 30, 3, FILES)
    assert states(Record(store)) == [(0, "finished", "FINISHED"), (1, "diverged", "FAILED")]


def test_sync_marks_open_trials_of_a_killed_search_interrupted(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """Its journal has no end; the search and its trials can continue."""
    killed = session(home)
    killed.trial(0, make_spec(), report(12, 1.5, Status.FINISHED), outcome="finished")
    killed.begin(1, make_spec(seed=1))
    killed.begin(2, make_spec(seed=2))
    killed.report(2, report(4, 1.5))
    newest = killed.journal.entries[-1].event.time_ms
    killed.close()
    length = killed.journal.path.stat().st_size
    assert sync(home, "lm-1") == SyncResult(3, 12, 4, FILES)
    record = Record(store)
    assert states(record) == [
        (0, "finished", "FINISHED"), (1, "interrupted", "KILLED"), (2, "interrupted", "KILLED")
    ]  # fmt: skip
    search = record.search("lm-1")
    assert (search.status, search.best_run) == ("interrupted", None)
    assert search.tags[Tag.TRIALS_DONE] == "1 of 24"
    assert search.tags[Tag.TIME_LEFT] == "unknown: interrupted"
    assert record.client.get_run(search.run_id).info.end_time == newest
    assert killed.journal.path.stat().st_size == length, "only a driver writes to a journal"
    # the events of the journal are sent, and none more
    assert Cursor(home.search("lm-1"), CURSOR).read() == (7, killed.journal.digest)
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())


def test_sync_that_fails_leaves_no_thread(
    home: Home, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on to write, perhaps while another command does."""
    whole_search(home, make_spec)
    monkeypatch.setattr(module, "Follower", partial(Follower, clock=SharedClock()))

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.raises(StoreError, match=r"No space left on device\); 'tuner sync lm-1' sends"):
        sync(home, "lm-1")
    wait_for(lambda: "the tracking store" not in {each.name for each in threading.enumerate()})
    assert Cursor(home.search("lm-1"), CURSOR).read() is None


@pytest.mark.slow
def test_sync_refuses_a_journal_that_was_cut_after_it_was_recorded(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """Each line that is left follows the one before it, as after a kill."""
    whole_search(home, make_spec)
    assert JOURNAL_FILE in sync(home, "lm-1").files
    assert sync(home, "lm-1").description == "nothing was missing"
    path = home.search("lm-1") / JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-2]))
    with pytest.raises(JournalError, match="lm-1 is not the one that was recorded"):
        sync(home, "lm-1")
    path.write_bytes(whole)
    assert sync(home, "lm-1").description == "nothing was missing"


@pytest.mark.slow
@pytest.mark.parametrize("sent_reports", range(4))
def test_sync_sends_the_rest_of_a_killed_search(
    home: Home, store: str, make_spec: MakeSpec, sent_reports: int
) -> None:
    """Its parent and its trial were left running; the trial can continue."""
    killed = session(home, is_followed=True, clock=SharedClock())
    killed.begin(0, make_spec())
    killed.report(0, *(report(step, 1.5) for step in range(1, sent_reports + 1)))
    killed.flush()
    killed.report(0, *(report(step, 1.5) for step in range(sent_reports + 1, 4)))
    killed.close()
    record = Record(store)
    assert record.search().status == "running"
    sent = sync(home, "lm-1")
    assert sent == SyncResult(0, 6 * (3 - sent_reports), 2, ("journal.jsonl",))
    assert stored_steps(store, 0) == [1, 2, 3]
    assert states(record) == [(0, "interrupted", "KILLED")]
    assert record.search().status == "interrupted"

    resumed = session(home, is_followed=True)
    resumed.report(0, report(4, 1.5))
    resumed.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    assert record.search().status == "running"
    assert stored_steps(store, 0) == [1, 2, 3, 4]
    resumed.report(0, report(5, 1.0, Status.FINISHED), outcome="finished")
    resumed.finish(best=0, best_val_loss=1.0)
    assert states(record) == [(0, "finished", "FINISHED")]
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())
    assert record.search().metrics == {"best_val_loss": 1.0}


def test_resumed_search_sends_events_missed_by_killed_driver(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """The server was down when it was killed: a resumed search brings the record up to date."""
    killed = session(home)
    killed.trial(0, make_spec(), report(1, 1.5), report(2, 1.5), outcome="finished")
    killed.begin(1, make_spec(seed=1))
    killed.report(1, report(1, 1.5))
    killed.begin(2, make_spec(seed=2))
    killed.fail(2, "no memory")
    killed.finish("interrupted", 0)
    session(home, is_followed=True).flush()
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "running", "RUNNING"), (2, "failed: no memory", "FAILED")
    ]  # fmt: skip
    assert stored_steps(store, 0) == [1, 2]


def saved(path: Path, step: int) -> Path:
    checkpoint.write(path, {"weights": torch.ones(3)}, {"step": step})
    return path


@pytest.mark.slow
def test_sync_sends_the_states_of_the_best_trials(
    home: Home, store: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Once each, and not if it is damaged or of another report."""
    search = session(home)
    folder = home.search("lm-1") / "checkpoints"
    for number in range(4):
        search.begin(number, make_spec(seed=number))
        step = 10 if number < 3 else 11  # the last one trained on
        path = saved(folder / str(number) / "000000010.safetensors", step)
        if number:
            path = tmp_path / "elsewhere" / path.relative_to(tmp_path)  # the home has moved
        search.report(number, replace(report(10, 1.5), checkpoint=str(path)))
    search.close()
    record = Record(store)

    def files(*kept: int, **weights: str) -> tuple[str, ...]:
        if kept:
            digests = {int(name[1:]): digest for name, digest in weights.items()}
            end = SessionEnded("finished", best=kept[0], kept=kept, weights=digests)
            with closing(Journal.open(home.search("lm-1"))) as journal:
                journal.append(end)
        return sync(home, "lm-1").files

    assert files(0) == ("search_space.yaml", "journal.jsonl", "the checkpoint of trial 0")
    assert files() == ()
    assert files(1, 0, t1="0" * 64) == ("journal.jsonl",)  # another file than the journal names
    digest = recorded_digest(folder / "1" / "000000010.safetensors")
    assert files(1, 0, t1=digest) == ("journal.jsonl", "the checkpoint of trial 1")
    trials = record.trials(record.search())
    assert [record.has(trial.run_id, CHECKPOINT_FILE) for trial in trials] == [
        True,
        True,
        False,
        False,
    ]
    assert [trial.keeps_checkpoint for trial in trials] == [True, True, False, False]
    fetched = record.download(trials[1].run_id, CHECKPOINT_FILE, str(tmp_path))
    assert fetched is not None
    assert checkpoint.read(fetched)[1] == {"step": 10}
    (damaged,) = (folder / "2").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert files(2) == ("journal.jsonl",)
    assert files(3) == ("journal.jsonl",)
    assert record.search().best_run == trials[3].run_id


def test_sync_sends_the_journal_to_the_storage(
    home: Home, store: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; and a storage that is down, or has another journal, keeps nothing from MLflow."""
    url = fresh_url()
    engine = SPACE.engine.model_copy(update={"storage": url})
    storage, path = Storage(f"{url}/lm-1"), home.search("lm-1") / JOURNAL_FILE
    whole_search(home, make_spec, space=SPACE.model_copy(update={"engine": engine}))

    def names(*arguments: Any) -> list[str]:
        raise StorageError("the storage is switched off")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "names", names)
        with pytest.raises(StorageError, match="is switched off"):
            sync(home, "lm-1")
    assert states(Record(store)) == [(0, "finished", "FINISHED"), (1, "diverged", "FAILED")]
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ("journal.jsonl in the storage",))
    assert mirrored(storage) == path.read_bytes()
    assert sync(home, "lm-1").description == "nothing was missing"
    assert storage.names("journal") == ["0001"], "nothing is sent that is there"
    storage.write("journal/0001/00000002.jsonl", b"of another home\n")
    with pytest.raises(StorageError, match=r"went on in .* from another home"):
        sync(home, "lm-1")


def test_sync_refuses_a_search_that_is_being_run(home: Home, make_spec: MakeSpec) -> None:
    search = session(home)
    with pytest.raises(JournalInUse, match="lm-1 is being run by process"):
        sync(home, "lm-1")
    search.close()


def test_sync_reports_unreadable_journal(home: Home, make_spec: MakeSpec) -> None:
    with pytest.raises(RecordError, match=r"there is no .*lm-1/journal.jsonl; 'tuner list'"):
        sync(home, "lm-1")
    assert not home.search("lm-1").exists()
    Journal.open(home.search("lm-1")).close()
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())  # it never began
    path = home.search("lm-1") / JOURNAL_FILE
    for text in ('{"event":"search","format":1', '{"event":"trial","number":0,"format":1'):
        path.write_text(f'{text},"crc":"{zlib.crc32(text.encode()):08x}"}}\n', encoding="utf-8")
        with pytest.raises(JournalError, match="was written by another version of tuner, or edit"):
            sync(home, "lm-1")
    path.unlink()
    with closing(Journal.open(home.search("lm-1"))) as journal:
        journal.append(SessionBegun({}, 1, in_order=True))
    with pytest.raises(JournalError, match="contradicts itself at event 1: the search has not beg"):
        sync(home, "lm-1")


def test_sync_of_home_reports_each_search(
    home: Home, store: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)

    def say(name: str | None = None) -> tuple[dict[str, Any], list[str]]:
        console.file = io.StringIO()
        return print_synced(console, home, name), console.file.getvalue().splitlines()

    assert say() == (
        {"store": store, "sent": {}},
        [f"no search in {tmp_path} has anything to upload"],
    )
    whole_search(home, make_spec)
    said, lines = say("lm-1")
    files = ["search_space.yaml", "journal.jsonl"]
    assert lines == ["lm-1: 2 runs, 30 metrics, 3 endings, search_space.yaml and journal.jsonl"]
    assert said["sent"] == {"lm-1": {"runs": 2, "metrics": 30, "files": files}}
    with closing(Journal.open(home.search("lm-2"))):
        lines = say()[1]
        assert lines[0] == "lm-1: nothing was missing"
        assert lines[1].startswith("lm-2: skipped; the search lm-2 is being run by process")
        with pytest.raises(JournalInUse):
            say("lm-2")
    (home.search("lm-0")).mkdir()
    (home.search("lm-0") / "journal.jsonl").write_text("{}\n{}\n")
    with pytest.raises(TunerError, match=r"lm-0/journal.jsonl:1 is damaged"):
        say()
    assert "lm-2: nothing was missing" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["go_down", "fail", "hang"])
def test_sync_sends_what_the_search_could_not(
    home: Home, server: FaultyServer, store: str, make_spec: MakeSpec, fault: str,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The server breaks in mid-search and is mended after it."""
    home = replace(home, tracking_uri=server.uri)
    search = session(home, is_followed=True)
    search.begin(0, make_spec())
    search.report(0, report(4, 1.5))
    search.flush()
    getattr(server, fault)()
    search.report(0, report(8, 1.5), report(12, 1.5, Status.FINISHED), outcome="finished")
    search.trial(1, make_spec(seed=1), report(4, 1.5), outcome="stopped at report 1")
    search.end(best=0, best_val_loss=1.5)
    assert "'tuner sync lm-1' sends it later" in str(search.follower.flush(2.0))
    search.close()
    start = time.monotonic()
    with pytest.raises(StoreError, match=f"{server.uri} cannot be used"):
        sync(home, "lm-1")
    assert time.monotonic() - start < 30
    server.mend()
    time.sleep(1.5)  # what hung may come before it or later
    sync(home, "lm-1")
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "stopped at report 1", "FINISHED")
    ]  # fmt: skip
    assert (stored_steps(store, 0), stored_steps(store, 1)) == ([4, 8, 12], [4])
    assert len(contents(store)["metrics"]) == 4 * 6 + 1
    assert Record(store).search().metrics == {"best_val_loss": 1.5}


def test_sync_deletes_a_run_that_was_made_twice(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """By a server that hung when its driver died."""
    settings = RunSettings(home.tracking_uri, home.artifacts, "lm", "lm-1", TAGS)
    runs = Runs(settings)
    for _ in range(2):
        runs.create(0, RunStart(make_spec(seed=0), ENVIRONMENT, 1000))
    whole_search(home, make_spec)
    sync(home, "lm-1")
    assert [number for number, _, _ in states(Record(store))] == [0, 1]
    assert stored_steps(store, 0) == [4, 8, 12]
