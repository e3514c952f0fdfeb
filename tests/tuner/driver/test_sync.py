from __future__ import annotations

import io
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tuner.driver.catch_up import catch_up
from tuner.journal.journaled_search import JournaledSearch
from tuner.tracking.tracker import Tracker

from model.checkpoints import checkpoint
from model.checkpoints.header import recorded_digest
from model.engine.report import Report, Status
from model.spec.trial import InitFrom
from tests.conftest import MakeSpec
from tests.tuner.fault_injection import FaultyServer
from tests.tuner.simulated_search import FACTS
from tests.tuner.tracking.recorded import ENVIRONMENT, states, stored_steps
from tuner.commands.maintenance.sync import print_synced
from tuner.conductor.outcome import Outcome
from tuner.driver import sync as module
from tuner.driver.sync import SyncResult, sync
from tuner.errors import JournalError, JournalInUse, RecordError, StoreError, TunerError
from tuner.home import Home
from tuner.journal.events import (
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEnded,
    TrialFailed,
)
from tuner.journal.journal import Journal, read_journal
from tuner.journal.lines import line_of
from tuner.space.settings import SearchConfig
from tuner.space.space import SearchSpace
from tuner.tracking import tracker as tracking
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.progress import final_tags
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.runs import RunSettings, RunStart, trial_tags
from tuner.tracking.tags import CHECKPOINT_FILE, JOURNAL_FILE, Tag
from tuner.trained.table_trials import journaled, trials_of

SPACE = SearchSpace(name="lm", search=SearchConfig(sampler="tpe", scheduler="asha", seed=3))
INPUTS = dataset_inputs(SPACE.data, FACTS)
TAGS = {"sampler": "tpe", "scheduler": "asha", "seed": "3", "tuner.metric": "val_loss"}


@pytest.fixture(autouse=True)
def without_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model and the report have their own tests: the trials here have no weights."""
    monkeypatch.setattr(module, "_publish", lambda *_: ())


@pytest.fixture
def home(store: str, tmp_path: Path) -> Home:
    return Home(tmp_path, store)


class Driver:
    """Writes the journal of a search, and tells a tracker if there is one."""

    def __init__(
        self,
        home: Home,
        make_spec: MakeSpec,
        tracker: Tracker | None = None,
        init_from: InitFrom | None = None,
    ) -> None:
        self.journal = Journal.open(home.search("lm-1"))
        self._make_spec, self.tracker = make_spec, tracker
        self._init_from = init_from

    def begin(self) -> None:
        if not self.journal.events:
            facts = replace(FACTS, init_from=self._init_from)
            self.journal.append(SearchBegun(SPACE, "name: lm\n", facts))
        self.journal.append(SessionBegun(ENVIRONMENT, 1, in_order=True))

    def start(self, number: int, parent: int | None = None) -> None:
        spec = self._make_spec(seed=number).model_copy(update={"init_from": self._init_from})
        time_ms = self.journal.append(TrialBegun(number, {}, spec, parent))
        if self.tracker:
            self.tracker.start_trial(number, spec, ENVIRONMENT, time_ms, trial_tags(parent))

    def report(self, number: int, *steps: int, loss: float = 1.5, path: Path | None = None) -> None:
        for step in steps:
            status = Status.DIVERGED if math.isnan(loss) else Status.TRAINING
            checkpoint = str(path) if path else None
            report = Report(str(number), status, step, step * 32, loss, 0.1, 0.2, 0.3, checkpoint)
            time_ms = self.journal.append(Reported(number, report))
            if self.tracker:
                self.tracker.log_report(number, report, time_ms)

    def end(self, number: int, outcome: str) -> None:
        time_ms = self.journal.append(TrialEnded(number, Outcome.parse(outcome)))
        if self.tracker:
            self.tracker.end_trial(number, outcome, time_ms)

    def finish(self, status: str, best: int | None, **summary: float) -> None:
        self.journal.append(SessionEnded(status, summary, best))
        if self.tracker:
            self.tracker.flush()
            run = None if best is None else self.tracker.run_of(best)
            digest = {Tag.JOURNAL: self.journal.digest}
            self.tracker.add_artifact(self.journal.path, tags=digest)
            trials = JournaledSearch.of_name(
                read_journal(self.journal.path.parent), "lm-1"
            ).trials.values()
            ended = sum(str(trial.outcome) in {"finished", "diverged"} for trial in trials)
            tags = final_tags(status, best, summary, ended, max(24, len(trials)))
            self.tracker.finish(status, summary, run, tags=tags)

    def whole_search(self) -> None:
        self.begin()
        self.start(0)
        self.report(0, 4, 8)
        self.start(1, parent=0)
        self.report(1, 4)
        self.report(1, 5, loss=math.nan)
        self.end(1, "diverged")
        self.report(0, 12)
        self.end(0, "finished")
        self.finish("finished", 0, best_val_loss=1.5)
        self.journal.close()


def contents(store: str) -> dict[str, list[Any]]:
    """Every row of the store that is about a run."""
    tables = ("metrics", "latest_metrics", "params", "tags", "runs")
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        return {
            table: sorted(connection.execute(f"select * from {table}").fetchall(), key=repr)
            for table in tables
        }


def open_tracker(home: Home, *, resume: bool = False) -> Tracker:
    settings = RunSettings(
        home.tracking_uri, home.artifacts, "lm", "lm-1", TAGS, resume=resume, inputs=INPUTS
    )
    return Tracker(settings)


def test_sync_sends_a_search_that_the_store_never_saw(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    Driver(home, make_spec).whole_search()
    assert sync(home, "lm-1") == SyncResult(2, 30, 3, ("search_space.yaml", "journal.jsonl"))
    record = Record(store)
    search = record.search("lm-1")
    assert states(record) == [(0, "finished", "FINISHED"), (1, "diverged", "FAILED")]
    first, second = record.trials(search)
    assert second.parent == 0
    assert record.spec(second) == make_spec(seed=1)
    assert second.environment == ENVIRONMENT
    reports = record.report_list(second, make_spec(seed=1))
    assert [(r.step, str(r.val_loss)) for r in reports] == [(4, "1.5"), (5, "nan")]
    assert (search.status, search.best_run) == ("finished", first.run_id)
    assert search.metrics == {"best_val_loss": 1.5}
    assert TAGS.items() <= search.tags.items()
    assert record._text(search.run_id, "search_space.yaml") == "name: lm\n"

    before = contents(store)
    assert sync(home, "lm-1").description == "nothing was missing"
    assert contents(store) == before
    check_tables(home, record, search)


def check_tables(home: Home, record: Record, search: SearchRecord) -> None:
    """The trials of a journal are those that MLflow reads, apart from what no table shows."""
    known, is_recorded = journaled(home, search)
    assert is_recorded
    trials = record.trials(search)
    hidden = {"artifact_uri": "", "spec_hash": "", "checkpoint_tokens": None}
    for ours, theirs in zip(trials_of(record, search, known), trials, strict=True):
        for name, value in {**asdict(theirs), **hidden}.items():
            assert str(getattr(ours, name)) == str(_sorted_as(value, getattr(ours, name))), name
    older = replace(search, tags={**search.tags, Tag.JOURNAL: "another"})
    assert not journaled(home, older)[1]
    assert repr(trials_of(record, search, None)) == repr(trials)


def _sorted_as(value: Any, other: Any) -> Any:
    """A dictionary in the order of another one; NaN, which equals nothing, is compared as text."""
    if not isinstance(value, dict):
        return value
    assert value.keys() == other.keys()
    return {name: value[name] for name in other}


def test_sync_sends_a_warm_started_search(home: Home, store: str, make_spec: MakeSpec) -> None:
    start = InitFrom(sha256="5" * 64, optimizer_steps=12)
    Driver(home, make_spec, init_from=start).whole_search()
    search = JournaledSearch.of(read_journal(home.search("lm-1")))
    assert search is not None
    assert search.facts == replace(FACTS, init_from=start)
    assert sync(home, "lm-1") == SyncResult(2, 30, 3, ("search_space.yaml", "journal.jsonl"))
    record = Record(store)
    for trial in record.trials(record.search("lm-1")):
        assert record.spec(trial).init_from == start
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())


def test_sync_has_nothing_to_send_after_a_search_without_faults(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """What a driver says while it runs is what its journal says later."""
    tracker = open_tracker(home)
    tracker.add_text("name: lm\n", "search_space.yaml")
    Driver(home, make_spec, tracker).whole_search()
    before = contents(store)
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())
    assert contents(store) == before
    tags = Record(store).search("lm-1").tags
    assert tags[Tag.TRIALS_DONE] == "2 of 2"
    assert tags[Tag.BEST_SO_FAR] == "val_loss 1.5000 in trial 0"
    assert tags[Tag.TIME_LEFT] == "0:00"


@pytest.mark.slow
def test_sync_refuses_a_journal_that_was_cut_after_it_was_recorded(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """Each line that is left follows the one before it, as after a kill."""
    Driver(home, make_spec).whole_search()
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
    driver = Driver(home, make_spec, open_tracker(home))
    driver.begin()
    driver.start(0)
    for step in range(1, sent_reports + 1):
        driver.report(0, step)
    assert driver.tracker is not None
    driver.tracker.flush()
    driver.tracker.close()
    driver.tracker = None
    for step in range(sent_reports + 1, 4):
        driver.report(0, step)
    driver.journal.close()
    record = Record(store)
    assert record.search().status == "running"
    sent = sync(home, "lm-1")
    assert sent == SyncResult(0, 6 * (3 - sent_reports), 2, ("search_space.yaml", "journal.jsonl"))
    assert stored_steps(store, 0) == [1, 2, 3]
    assert states(record) == [(0, "interrupted", "KILLED")]
    assert record.search().status == "interrupted"

    resumed = Driver(home, make_spec, open_tracker(home, resume=True))
    assert resumed.tracker is not None
    resumed.begin()
    catch_up(resumed.tracker, JournaledSearch.of(resumed.journal.events))
    resumed.report(0, 4)
    resumed.tracker.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    assert record.search().status == "running"
    assert stored_steps(store, 0) == [1, 2, 3, 4]
    resumed.end(0, "finished")
    resumed.finish("finished", 0, best_val_loss=1.0)
    resumed.journal.close()
    assert states(record) == [(0, "finished", "FINISHED")]
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())
    assert record.search().metrics == {"best_val_loss": 1.0}


def test_catch_up_sends_events_missed_by_killed_driver(
    home: Home, store: str, make_spec: MakeSpec
) -> None:
    """The server was down when it was killed: a resumed search brings the record up to date."""
    driver = Driver(home, make_spec)
    driver.begin()
    driver.start(0)
    driver.report(0, 1, 2)
    driver.end(0, "finished")
    driver.start(1)
    driver.report(1, 1)
    driver.end(1, "interrupted")
    driver.start(2)
    driver.journal.append(TrialFailed(2, "no memory"))
    driver.finish("interrupted", 0)
    driver.journal.close()
    tracker = open_tracker(home, resume=True)
    with closing(Journal.open(home.search("lm-1"))) as journal:
        catch_up(tracker, JournaledSearch.of(journal.events))
    tracker.flush()
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "running", "RUNNING"), (2, "failed: no memory", "FAILED")
    ]  # fmt: skip
    assert stored_steps(store, 0) == [1, 2]
    tracker.close()


def saved(path: Path, step: int) -> Path:
    checkpoint.write(path, {"weights": torch.ones(3)}, {"step": step})
    return path


@pytest.mark.slow
def test_sync_sends_the_states_of_the_best_trials(
    home: Home, store: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Once each, and not if it is damaged or of another report."""
    driver = Driver(home, make_spec)
    folder = home.search("lm-1") / "checkpoints"
    driver.begin()
    for number in range(4):
        driver.start(number)
        step = 10 if number < 3 else 11  # the last one trained on
        path = saved(folder / str(number) / "000000010.safetensors", step)
        if number:
            path = tmp_path / "elsewhere" / path.relative_to(tmp_path)  # the home has moved
        driver.report(number, 10, path=path)
    record = Record(store)

    def files(*kept: int, **weights: str) -> tuple[str, ...]:
        if kept:
            digests = {int(name[1:]): digest for name, digest in weights.items()}
            end = SessionEnded("finished", best=kept[0], kept=kept, weights=digests)
            driver.journal.append(end)
        driver.journal.close()
        sent = sync(home, "lm-1").files
        driver.journal = Journal.open(home.search("lm-1"))
        return sent

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
    driver.journal.close()


def test_sync_refuses_a_search_that_is_being_run(home: Home, make_spec: MakeSpec) -> None:
    driver = Driver(home, make_spec)
    driver.begin()
    with pytest.raises(JournalInUse, match="lm-1 is being run by process"):
        sync(home, "lm-1")
    driver.journal.close()


def test_sync_reports_unreadable_journal(home: Home, make_spec: MakeSpec) -> None:
    with pytest.raises(RecordError, match=r"there is no .*lm-1/journal.jsonl; 'tuner list'"):
        sync(home, "lm-1")
    assert not home.search("lm-1").exists()
    journal = Journal.open(home.search("lm-1"))
    journal.append(SessionBegun({}, 1, in_order=True))
    journal.close()
    assert sync(home, "lm-1") == SyncResult(0, 0, 0, ())  # it never began
    for event in ({"event": "search"}, {"event": "trial", "number": 0, "spec": "{}"}):
        with journal.path.open("ab") as file:
            file.write(line_of({**event, "time_ms": 1}))
        with pytest.raises(JournalError, match="is of another version of tuner"):
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
    Driver(home, make_spec).whole_search()
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


@contextmanager
def patience(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_PATIENCE_SECONDS", seconds)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["go_down", "fail", "hang"])
def test_sync_sends_what_the_search_could_not(
    home: Home, server: FaultyServer, store: str, make_spec: MakeSpec, fault: str,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The server breaks in mid-search and is mended after it."""
    home = replace(home, tracking_uri=server.uri)
    driver = Driver(home, make_spec, open_tracker(home))
    driver.begin()
    driver.start(0)
    driver.report(0, 4)
    assert driver.tracker is not None
    driver.tracker.flush()
    getattr(server, fault)()
    driver.report(0, 8, 12)
    driver.end(0, "finished")
    driver.start(1)
    driver.report(1, 4)
    driver.end(1, "stopped at report 1")
    with (
        patience(monkeypatch, 2.0),
        pytest.raises(StoreError, match="'tuner sync lm-1' sends it later"),
    ):
        driver.finish("finished", 0, best_val_loss=1.5)
    driver.tracker.close()
    driver.journal.close()
    start = time.monotonic()
    with (
        patience(monkeypatch, 2.0),
        pytest.raises(StoreError, match=f"{server.uri} cannot be used"),
    ):
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
    tracker = open_tracker(home)
    for _ in range(2):
        tracker.runs.create(0, RunStart(make_spec(seed=0), ENVIRONMENT, 1000))
    tracker.close()
    Driver(home, make_spec).whole_search()
    sync(home, "lm-1")
    assert [number for number, _, _ in states(Record(store))] == [0, 1]
    assert stored_steps(store, 0) == [4, 8, 12]
