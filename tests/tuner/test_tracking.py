from __future__ import annotations

import math
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from model.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.faults import FaultyServer, small_disk
from tuner import tracking
from tuner.errors import RecordError, StoreError
from tuner.record import Record
from tuner.runs import Birth, Told, trial_tags
from tuner.tracking import Tracker

Open = Callable[..., Tracker]
ENVIRONMENT = {"device": "cpu: x", "dtype": "float32", "torch": "2", "numpy": "2", "python": "3"}


@pytest.fixture
def open_tracker(store: str, tmp_path: Path) -> Open:
    def make(search: str = "lm-1", uri: str = store, *, resume: bool = False) -> Tracker:
        tags = {"sampler": "tpe"}
        return Tracker(uri, tmp_path / "artifacts", "lm", search, tags, resume=resume)

    return make


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 1 / 3, 0.1 + 0.2, 0.01)


def rows(store: str, what: str) -> list[Any]:
    """What is in the store's own tables."""
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        return connection.execute(what).fetchall()


def stored_steps(store: str, number: int) -> list[int]:
    """Steps of a trial's reports in the order in which they were written."""
    name = f"lm-1/{number:03d}"
    found = rows(
        store,
        "select step from metrics join runs using (run_uuid) where key = 'tokens' and "
        f"runs.name = '{name}' and lifecycle_stage = 'active' order by metrics.rowid",
    )
    return [step for (step,) in found]


def states(record: Record, search: str = "lm-1") -> list[tuple[int, str, str]]:
    """Number, our status and MLflow's of each trial."""
    trials = record.trials(record.search(search))
    get = record.client.get_run
    return [(t.number, t.status, get(t.run_id).info.status) for t in trials]


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_tracker_keeps_every_bit(open_tracker: Open, store: str, make_spec: MakeSpec) -> None:
    """A replay compares what comes back from the store: NaN and the last digit included."""
    tracker, spec = open_tracker(), make_spec()
    reports = [report(4, math.pi), report(8, 1e-17), report(9, math.nan, Status.DIVERGED)]
    tracker.start_trial(0, spec, ENVIRONMENT)
    for each in reports:
        tracker.report(0, each)
    tracker.end_trial(0, "diverged")
    tracker.flush()
    tracker.finish("finished", {"best_val_loss": 1.0}, tracker.run_of(0))

    record = Record(store)
    trial = record.best(record.search("lm-1"))
    assert record.spec(trial) == spec
    assert trial.status == "diverged"
    assert trial.environment == ENVIRONMENT
    back = record.reports(trial)
    assert [str(m) for m in back.values()] == [str(r.metrics()) for r in reports]
    assert record.client.get_run(trial.run_id).info.status == "FAILED"


def test_record_gives_whole_reports_back(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """As they were made, infinities and what only some trials have included."""
    spec = make_spec(steps=12, reports=3)
    finished = [
        replace(report(4, 1e-17), sparsity=0.0, token_accuracy=1 / 3),
        report(8, math.pi),
        replace(report(12, 2.0, Status.FINISHED), sparsity=0.9, token_accuracy=1.0, bleu=0.1),
    ]
    diverged = [
        replace(report(4, 800.0), trial_id="1"),
        replace(report(5, math.nan, Status.DIVERGED), trial_id="1", train_loss=math.inf),
    ]
    tracker = open_tracker()
    for number, reports in enumerate((finished, diverged)):
        tracker.start_trial(number, spec, ENVIRONMENT)
        for each in reports:
            tracker.report(number, each)
        tracker.end_trial(number, str(reports[-1].status))
    tracker.finish("finished", {}, None)
    record = Record(store)
    back = [record.report_list(trial, spec) for trial in record.trials(record.search())]
    assert repr(back) == repr([finished, diverged])
    assert back[0] == finished


def test_tracker_retries_what_the_store_refuses(
    open_tracker: Open, store: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call fails at first; nothing is lost and nothing is there twice."""
    tracker = open_tracker()
    client, failures = (
        tracker.runs.record.client,
        dict.fromkeys(("create_run", "log_batch", "log_text"), 1),
    )

    def flaky(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if failures[name]:
                failures[name] -= 1
                raise sqlite3.OperationalError("database is locked")
            return real(*args, **kwargs)

        return call

    for name in failures:
        monkeypatch.setattr(client, name, flaky(name))
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.report(0, report(4, 2.0))
    tracker.end_trial(0, "finished")
    tracker.flush()
    record = Record(store)
    (trial,) = record.trials(record.search())
    assert list(record.reports(trial)) == [4]
    assert not any(failures.values())


def test_tracker_says_when_the_store_stays_away(
    open_tracker: Open, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = open_tracker()
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 1.5)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tracker.runs.record.client, "create_run", refuse)
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    with pytest.raises(StoreError, match=r"lm-1: disk I/O error; 'tuner sync lm-1' sends it later"):
        tracker.flush()
    assert tracker.problem is not None
    assert "disk I/O error" in tracker.problem


def test_tracker_refuses_an_unusable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    with pytest.raises(StoreError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/file")


def test_record_finds_searches_and_trials(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    record = Record(store)
    with pytest.raises(RecordError, match="run 'tuner search' first"):
        record.search()
    for name in ("lm-1", "lm-2"):
        tracker = open_tracker(name)
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.end_trial(0, "interrupted")
        tracker.flush()
        tracker.finish("interrupted", {}, None)
    assert [s.name for s in record.searches()] == ["lm-2", "lm-1"]
    assert record.search("lm-1").status == "interrupted"
    with pytest.raises(RecordError, match="no search is called lm-9; the newest are: lm-2, lm-1"):
        record.search("lm-9")
    with pytest.raises(RecordError, match="has no best trial"):
        record.best(record.search("lm-2"))
    (trial,) = record.trials(record.search("lm-1"))
    assert record.trial(trial.run_id[:10]) == trial
    for wrong in ("f" * 32, trial.run_id[:3], "../x", "' OR 1=1"):
        with pytest.raises(RecordError, match="run id"):
            record.trial(wrong)
    assert record.trial(trial.run_id) == trial
    parent = record.search("lm-1").run_id
    with pytest.raises(RecordError, match="no trial has the run id"):
        record.trial(parent)  # a search is none


def test_record_knows_what_was_trained_before(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    specs = [make_spec(seed=seed) for seed in range(5)]
    elsewhere = {**ENVIRONMENT, "torch": "1"}
    quoted = {**ENVIRONMENT, "device": "cpu: Bob's"}
    tracker = open_tracker()
    for number, (status, environment) in enumerate(
        [("finished", ENVIRONMENT), ("stopped at report 2", ENVIRONMENT), ("finished", elsewhere),
         ("finished", quoted), ("same as trial 0", ENVIRONMENT)]
    ):  # fmt: skip
        tracker.start_trial(number, specs[number], environment)
        tracker.end_trial(number, status)
    tracker.finish("finished", {}, None)
    again = open_tracker("lm-2")
    again.start_trial(0, specs[0], ENVIRONMENT)
    again.end_trial(0, "finished")
    again.finish("finished", {}, None)
    record = Record(store)
    newest = record.trials(record.search("lm-2"))[0].run_id
    trials = record.trials(record.search("lm-1"))
    assert record.finished(ENVIRONMENT) == {specs[0].hash: newest}
    assert record.finished(ENVIRONMENT, "data") == {specs[0].hash: newest}
    assert record.finished(ENVIRONMENT, "other data") == {}
    assert record.finished(elsewhere) == {specs[2].hash: trials[2].run_id}
    assert record.finished(quoted) == {specs[3].hash: trials[3].run_id}
    assert record.finished({}) == {}


# said twice, stored once ---------------------------------------------------------------------


def say_all(tracker: Tracker, make_spec: MakeSpec) -> None:
    """A search of three trials, with the times of its journal."""
    for number in range(3):
        links = trial_tags(0, None) if number else {}
        tracker.start_trial(number, make_spec(seed=number), ENVIRONMENT, 1000 + number, links)
        for step in (4, 8, 9):
            is_last = step == 9
            loss = math.nan if is_last else 1 / step
            status = Status.DIVERGED if is_last else Status.TRAINING
            tracker.report(number, report(step, loss, status), 2000 + step)
        tracker.end_trial(number, "diverged", 3000 + number)


def test_what_is_said_twice_is_stored_once(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """To one tracker, and to one that resumes."""
    first = open_tracker()
    say_all(first, make_spec)
    say_all(first, make_spec)
    first.flush()
    first.finish("finished", {"best": 1.0}, first.run_of(1), 5000)
    tables = ("metrics", "latest_metrics", "params", "tags", "runs")
    before = [sorted(rows(store, f"select * from {table}"), key=repr) for table in tables]
    assert len(before[0]) == 3 * 3 * 6 + 1

    second = open_tracker(resume=True)
    assert second.run_id == first.run_id
    say_all(second, make_spec)
    second.flush()
    second.finish("finished", {"best": 1.0}, second.run_of(1), 5000)
    after = [sorted(rows(store, f"select * from {table}"), key=repr) for table in tables]
    assert after == before
    assert (second.num_created, second.num_metrics) == (0, 0)
    trials = Record(store).trials(Record(store).search())
    assert [(t.parent, t.confirms) for t in trials] == [(None, None), (0, None), (0, None)]


def test_mlflow_stores_equal_metrics_once(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """What a retry rests on whose first attempt was served although it seemed to fail."""
    tracker = open_tracker()
    told = [
        Told(report(4, math.nan), 2000),
        Told(replace(report(8, 1.0), grad_norm=math.inf), 2001),
    ]
    run_id = tracker.runs.create(0, Birth(make_spec(), ENVIRONMENT, 1000))
    for batch in (told[:1], told, told):
        tracker.runs.log(run_id, batch)
    assert stored_steps(store, 0) == [4, 8]
    assert len(rows(store, "select * from metrics")) == 12
    assert len(Record(store).client.get_metric_history(run_id, "val_loss")) == 2


def test_tracker_goes_on_after_its_driver_was_killed(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """A run that was left running is found, and what had not been sent of it follows."""
    killed = open_tracker()
    killed.start_trial(0, make_spec(), ENVIRONMENT, 1000)
    killed.report(0, report(4, 2.0), 2000)
    killed.flush()
    killed.close()
    record = Record(store)
    assert states(record) == [(0, "running", "RUNNING")]

    resumed = open_tracker(resume=True)
    told = [Told(report(4, 2.0), 2000), Told(report(8, 1.0), 2001)]
    resumed.add_trial(0, Birth(make_spec(), ENVIRONMENT, 1000), told, "running", 1000)
    resumed.start_trial(1, make_spec(seed=1), ENVIRONMENT, 3000)
    resumed.flush()
    assert stored_steps(store, 0) == [4, 8]
    assert states(record) == [(0, "running", "RUNNING"), (1, "running", "RUNNING")]
    assert (resumed.num_created, resumed.num_metrics) == (1, 6)
    resumed.end_trial(0, "finished")
    resumed.finish("finished", {}, None)
    assert [search.status for search in record.searches()] == ["finished"]


def test_tracker_takes_an_ending_back(open_tracker: Open, store: str, make_spec: MakeSpec) -> None:
    """A search that was interrupted, or a trial that was parked, goes on."""
    record, spec = Record(store), make_spec()
    first = open_tracker()
    first.start_trial(0, spec, ENVIRONMENT)
    first.report(0, report(4, 2.0))
    first.end_trial(0, "interrupted")
    first.finish("interrupted", {}, None)
    assert states(record) == [(0, "interrupted", "KILLED")]
    parent = first.run_id
    assert record.client.get_run(parent).info.status == "KILLED"

    second = open_tracker(resume=True)
    assert record.search().status == "interrupted"  # until a trial goes on
    second.start_trial(0, spec, ENVIRONMENT)
    second.flush()
    assert states(record) == [(0, "running", "RUNNING")]
    assert record.search().status == "running"
    assert record.client.get_run(parent).info.status == "RUNNING"
    second.end_trial(0, "stopped at report 1")
    second.flush()
    assert states(record) == [(0, "stopped at report 1", "FINISHED")]
    second.start_trial(0, spec, ENVIRONMENT)
    second.report(0, report(8, 1.0))
    second.end_trial(0, "failed: its worker died")
    second.finish("finished", {"best": 1.0}, second.run_of(0))
    assert states(record) == [(0, "failed: its worker died", "FAILED")]
    assert stored_steps(store, 0) == [4, 8]
    assert record.search().best_run == second.run_of(0)


def test_tracker_resumes_in_a_store_that_knows_nothing(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    tracker = open_tracker(resume=True)
    say_all(tracker, make_spec)
    tracker.finish("finished", {}, None)
    assert [status for _, status, _ in states(Record(store))] == ["diverged"] * 3


def test_tracker_sends_many_reports_in_order(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """More than one call takes."""
    tracker = open_tracker()
    told = [Told(report(step, 1 / step), 2000 + step) for step in range(1, 251)]
    tracker.add_trial(0, Birth(make_spec(), ENVIRONMENT, 1000), told, "finished", 3000)
    tracker.flush()
    assert stored_steps(store, 0) == list(range(1, 251))
    assert tracker.num_metrics == 1500


# faults --------------------------------------------------------------------------------------


def call_times(tracker: Tracker, number: int, steps: range) -> list[float]:
    """Seconds that each of many calls takes."""
    times = []
    for step in steps:
        start = time.perf_counter()
        tracker.report(number, report(step, 1 / step))
        times.append(time.perf_counter() - start)
        time.sleep(0.001)
    return times


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("go_down", "refuses connections"), ("fail", "error 500"), ("hang", "does not answer")],
)
def test_tracker_outlasts_its_server(
    open_tracker: Open,
    server: FaultyServer,
    store: str,
    make_spec: MakeSpec,
    fault: str,
    reason: str,
) -> None:
    """It breaks in mid-search: calls return at once, and all arrives afterwards, in order, once."""
    tracker = open_tracker(uri=server.uri)
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.report(0, report(1, 2.0))
    tracker.flush()
    getattr(server, fault)()
    times = call_times(tracker, 0, range(2, 500))
    start = time.perf_counter()
    tracker.start_trial(1, make_spec(seed=1), ENVIRONMENT)
    times += call_times(tracker, 1, range(1, 500))
    tracker.end_trial(0, "finished")
    assert time.perf_counter() - start < 5
    assert p99(times) < 0.001
    wait_for(lambda: tracker.problem)
    assert reason in str(tracker.problem)
    requests = server.num_requests
    time.sleep(2.5)  # so that a run is asked for more than once
    assert server.num_requests - requests < 15
    assert stored_steps(store, 0) == [1]
    server.mend()
    tracker.end_trial(1, "stopped at report 499")
    tracker.finish("finished", {"best": 1.0}, tracker.run_of(0))
    assert tracker.problem is None
    assert stored_steps(store, 0) == stored_steps(store, 1) == list(range(1, 500))
    time.sleep(0.5)  # a request that hung is served as well
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "stopped at report 499", "FINISHED")
    ]  # fmt: skip
    assert len(rows(store, "select * from metrics")) == 2 * 499 * 6 + 1


def test_tracker_makes_no_run_twice(
    open_tracker: Open, server: FaultyServer, store: str, make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A run whose making timed out and was served after it had been made again is deleted."""
    tracker = open_tracker(uri=server.uri)
    create = tracker.runs.create

    def twice(number: int, birth: Birth) -> str:
        """The one that nobody heard of any more, and which came too late to be found."""
        monkeypatch.setattr(tracker.runs, "create", create)
        monkeypatch.setattr(tracker.runs, "children", lambda: late() or [])
        raise TimeoutError

    def late() -> None:
        monkeypatch.undo()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        create(0, Birth(make_spec(), ENVIRONMENT, 1000))

    monkeypatch.setattr(tracker.runs, "create", twice)
    tracker.start_trial(0, make_spec(), ENVIRONMENT, 1000)
    tracker.report(0, report(4, 2.0))
    tracker.end_trial(0, "finished")
    tracker.finish("finished", {}, None)
    name = "select lifecycle_stage from runs where name = 'lm-1/000' order by 1"
    assert rows(store, name) == [("active",), ("deleted",)]
    assert stored_steps(store, 0) == [4]
    assert tracker.run_of(0) == Record(store).trials(Record(store).search())[0].run_id


@pytest.mark.slow
def test_tracker_waits_for_a_locked_database(
    open_tracker: Open, store: str, make_spec: MakeSpec
) -> None:
    """Another process writes to it for some seconds."""
    tracker = open_tracker()
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.flush()
    hold = (
        "import sqlite3, sys, time\n"
        "held = sqlite3.connect(sys.argv[1])\n"
        "held.execute('begin exclusive')\n"
        "print('locked', flush=True)\n"
        "time.sleep(4)\n"
        "held.rollback()\n"
    )
    command = [sys.executable, "-c", hold, store.removeprefix("sqlite:///")]
    with subprocess.Popen(command, stdout=PIPE, text=True) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == "locked\n"
        times = call_times(tracker, 0, range(1, 1000))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stored_steps_at_once(store)
        assert locker.poll() is None
        tracker.end_trial(0, "finished")
        tracker.finish("finished", {"best": 1.0}, tracker.run_of(0))
    assert p99(times) < 0.001
    assert stored_steps(store, 0) == list(range(1, 1000))
    assert states(Record(store)) == [(0, "finished", "FINISHED")]


def stored_steps_at_once(store: str) -> None:
    path = store.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("select * from metrics").fetchall()


def test_tracker_outlasts_a_full_disk(
    tmp_path: Path, empty_store: Path, make_spec: MakeSpec
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = empty_store.stat().st_size
    with small_disk(disk, size + 2_000_000, 1_900_000) as make_room:
        (disk / "mlflow.db").write_bytes(empty_store.read_bytes())
        store = f"sqlite:///{disk}/mlflow.db"
        tracker = Tracker(store, disk / "artifacts", "lm", "lm-1", {})
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.flush()
        times = call_times(tracker, 0, range(1, 500))
        wait_for(lambda: tracker.problem)
        assert "full" in str(tracker.problem)
        assert p99(times) < 0.001
        make_room()
        tracker.end_trial(0, "finished")
        tracker.finish("finished", {"best": 1.0}, tracker.run_of(0))
        assert tracker.problem is None
        assert stored_steps(store, 0) == list(range(1, 500))


def test_tracker_lets_go_of_a_server_that_hangs_at_the_end(
    open_tracker: Open, server: FaultyServer, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    tracker = open_tracker(uri=server.uri)
    server.hang()
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"does not answer; 'tuner sync lm-1' sends it later"):
        tracker.finish("finished", {}, None)
    assert time.monotonic() - start < 4


@pytest.mark.slow
def test_interpreter_exits_while_the_server_hangs(
    server: FaultyServer, make_spec: MakeSpec
) -> None:
    """The writer thread is in a request that may take a minute."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from model.spec import TrialSpec\n"
        "from tuner.tracking import Tracker\n"
        "tracker = Tracker(sys.argv[1], Path('.'), 'lm', 'lm-1', {})\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "tracker.start_trial(0, TrialSpec.model_validate_json(sys.argv[2]), {})\n"
        "time.sleep(1.5)\n"
        "print('end', flush=True)\n"
    )
    command = [sys.executable, "-c", code, server.uri, make_spec().model_dump_json()]
    patient = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=patient) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        server.hang()
        requests = server.num_requests
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "end\n"
        assert server.num_requests > requests  # it hangs in one
        start = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - start < 5
