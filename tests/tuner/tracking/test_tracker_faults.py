"""A store that fails during a search: calls return at once, and all data arrives afterwards."""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from tuner.tracking.backlog import note_unsynced, unsynced_events
from tuner.tracking.tracker import Tracker

from model.engine.engine import Engine
from model.engine.report import Report
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tests.tuner.fault_injection import FaultyServer, small_disk
from tests.tuner.tracking.recorded import (
    ENVIRONMENT,
    Open,
    report,
    rows,
    states,
    stored_steps,
    wait_for,
)
from tuner.errors import StoreError
from tuner.tracking import tracker as tracking
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import RunSettings, RunStart

# Seconds. A call takes 20 µs; with busy cores one in a hundred waits for its turn.
_AT_ONCE = 0.02


def call_times(tracker: Tracker, number: int, steps: range) -> list[float]:
    """Seconds that each of many calls takes."""
    times = []
    for step in steps:
        start = time.perf_counter()
        tracker.log_report(number, report(step, 1 / step))
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
    tmp_path: Path,
    fault: str,
    reason: str,
) -> None:
    """It fails during a search: calls return at once; later all data arrives in order, once."""
    note_unsynced(tmp_path, 7)  # by a driver that was killed
    tracker = open_tracker(uri=server.uri, note_unsynced=partial(note_unsynced, tmp_path))
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.log_report(0, report(1, 2.0))
    tracker.flush()
    wait_for(lambda: unsynced_events(tmp_path) == 0)
    getattr(server, fault)()
    times = call_times(tracker, 0, range(2, 500))
    start = time.perf_counter()
    tracker.start_trial(1, make_spec(seed=1), ENVIRONMENT)
    times += call_times(tracker, 1, range(1, 500))
    tracker.end_trial(0, "finished")
    assert time.perf_counter() - start < 5
    assert p99(times) < _AT_ONCE
    wait_for(lambda: tracker.problem)
    assert reason in str(tracker.problem)
    requests = server.num_requests
    time.sleep(2.5)  # so that a run is asked for more than once
    assert server.num_requests - requests < 15
    assert stored_steps(store, 0) == [1]
    # reports and outcome of the first trial, start and reports of the second one
    wait_for(lambda: unsynced_events(tmp_path) == 498 + 1 + 1 + 499)
    server.mend()
    tracker.end_trial(1, "stopped at report 499")
    tracker.finish("finished", {"best": 1.0}, tracker.run_of(0))
    assert tracker.problem is None
    assert unsynced_events(tmp_path) == 0
    assert stored_steps(store, 0) == stored_steps(store, 1) == list(range(1, 500))
    time.sleep(0.5)  # a request that hung is served as well
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "stopped at report 499", "FINISHED")
    ]  # fmt: skip
    assert len(rows(store, "select * from metrics")) == 2 * 499 * 6 + 1


def test_tracker_deletes_a_duplicate_run(
    open_tracker: Open, server: FaultyServer, store: str, make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Its creation timed out, and was served after the run had been created again."""
    tracker = open_tracker(uri=server.uri)
    create = tracker.runs.create

    def twice(number: int, start: RunStart) -> str:
        """Create a run whose answer is lost, and too late for the tracker to find it."""
        monkeypatch.setattr(tracker.runs, "create", create)
        monkeypatch.setattr(tracker.runs, "children", lambda on_page: late() or [])
        raise TimeoutError

    def late() -> None:
        monkeypatch.undo()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        create(0, RunStart(make_spec(), ENVIRONMENT, 1000))

    monkeypatch.setattr(tracker.runs, "create", twice)
    tracker.start_trial(0, make_spec(), ENVIRONMENT, 1000)
    tracker.log_report(0, report(4, 2.0))
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
    assert p99(times) < _AT_ONCE
    assert stored_steps(store, 0) == list(range(1, 1000))
    assert states(Record(store)) == [(0, "finished", "FINISHED")]


def stored_steps_at_once(store: str) -> None:
    path = store.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("select * from metrics").fetchall()


@pytest.mark.slow
def test_tracker_outlasts_a_full_disk(
    tmp_path: Path, empty_store: Path, make_spec: MakeSpec
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = empty_store.stat().st_size
    with small_disk(disk, size + 2_000_000, 1_900_000) as make_room:
        (disk / "mlflow.db").write_bytes(empty_store.read_bytes())
        store = f"sqlite:///{disk}/mlflow.db"
        tracker = Tracker(RunSettings(store, disk / "artifacts", "lm", "lm-1", {}))
        tracker.start_trial(0, make_spec(), ENVIRONMENT)
        tracker.flush()
        times = call_times(tracker, 0, range(1, 500))
        wait_for(lambda: tracker.problem)
        assert "full" in str(tracker.problem)
        assert p99(times) < _AT_ONCE
        make_room()
        tracker.end_trial(0, "finished")
        tracker.finish("finished", {"best": 1.0}, tracker.run_of(0))
        assert tracker.problem is None
        assert stored_steps(store, 0) == list(range(1, 500))


def test_tracker_gives_up_on_a_server_that_hangs_at_the_end(
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
        "from model.spec.trial import TrialSpec\n"
        "from tuner.tracking.runs import RunSettings\n"
        "from tuner.tracking.tracker import Tracker\n"
        "tracker = Tracker(RunSettings(sys.argv[1], Path('.'), 'lm', 'lm-1', {}))\n"
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


def cpu_seconds(
    tokens: tuple[np.ndarray, np.ndarray], spec: TrialSpec, on_report: Callable[[Report], None]
) -> tuple[float, float, float]:
    """Seconds of the training thread, of its calls of the tracker, and of other threads."""
    whole, own, logging_seconds = time.process_time(), time.thread_time(), 0.0
    for each in Engine(*tokens, slots=1).run([spec]):
        start = time.thread_time()
        on_report(each)
        logging_seconds += time.thread_time() - start
    own = time.thread_time() - own
    return own, logging_seconds, time.process_time() - whole - own


@pytest.mark.slow
def test_training_keeps_its_time_while_the_server_hangs(
    open_tracker: Open, server: FaultyServer, tokens: tuple[np.ndarray, np.ndarray],
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Less than 1 % is lost, in CPU seconds, which do not depend on the load of the machine.

    The writer thread can delay a step only by its own time in the interpreter.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    spec = make_spec(steps=400, reports=40, model={"d_model": 32})
    plain = cpu_seconds(tokens, spec, lambda _: None)[0]
    tracker = open_tracker(uri=server.uri)
    server.hang()
    requests = server.num_requests
    tracker.start_trial(0, spec, ENVIRONMENT)
    wait_for(lambda: server.num_requests > requests)
    own, logging_seconds, others = cpu_seconds(tokens, spec, partial(tracker.log_report, 0))
    assert server.num_requests == requests + 1  # it hung all the while
    server.mend()
    tracker.finish("finished", {}, None)
    assert tracker.num_metrics == 40 * 6
    sys.stdout.write(
        f"{plain:.2f} s of CPU without a tracker, {own:.2f} s with one, "
        f"{logging_seconds / own:.4%} of it to log; other threads {others / own:.4%}\n"
    )
    assert logging_seconds + others < 0.01 * own


def test_search_of_many_trials_is_read_in_more_time_than_the_patience(
    open_tracker: Open, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand runs take MLflow half a minute: every thousand of them are progress."""
    monkeypatch.setattr(tracking, "_PATIENCE_SECONDS", 3.0)
    before = open_tracker()
    before.start_trial(0, make_spec(), ENVIRONMENT)
    before.finish("interrupted", {}, None)
    tracker = open_tracker(resume=True)
    children = tracker.runs.children

    def slow(on_page: Callable[[], None]) -> list[TrialRecord]:
        for _ in range(4):
            time.sleep(1.0)
            on_page()
        return children(on_page)

    monkeypatch.setattr(tracker.runs, "children", slow)
    tracker.start_trial(0, make_spec(), ENVIRONMENT)
    tracker.log_report(0, report(1, 2.0))
    tracker.finish("finished", {}, None)
    assert tracker.num_created == 0
