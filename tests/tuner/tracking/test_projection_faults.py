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

from model.engine.engine import Engine
from model.engine.report import Report
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tests.tuner.fault_injection import FaultyServer, small_disk
from tests.tuner.manual_clock import SharedClock
from tests.tuner.tracking.recorded import (
    ENVIRONMENT,
    Begin,
    RecordedSearch,
    report,
    rows,
    states,
    stored_steps,
    wait_for,
)
from tuner.journal import journal as module
from tuner.journal.follower import Cursor
from tuner.tracking.projection import CURSOR
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import RunStart

_AT_ONCE = 0.02  # seconds; a call takes 0.1 ms
_ITS_TURN = 0.5  # seconds; with busy cores some calls wait, for other processes, but for no server


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call waits for beside the disk of the journal is measured here."""
    monkeypatch.setattr(module.os, "fsync", lambda file: None)


def call_times(search: RecordedSearch, number: int, steps: range) -> list[float]:
    """Seconds that each of many calls takes."""
    times = []
    for step in steps:
        start = time.perf_counter()
        search.report(number, report(step, 1 / step))
        times.append(time.perf_counter() - start)
        time.sleep(0.001)
    return times


def check_at_once(times: list[float]) -> None:
    assert statistics.median(times) < _AT_ONCE
    assert statistics.quantiles(times, n=100)[-1] < _ITS_TURN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("go_down", "refuses connections"), ("fail", "error 500"), ("hang", "does not answer")],
)
def test_projection_outlasts_its_server(
    begin_search: Begin,
    server: FaultyServer,
    store: str,
    make_spec: MakeSpec,
    tmp_path: Path,
    fault: str,
    reason: str,
) -> None:
    """It fails during a search: calls return at once; later all data arrives in order, once."""
    search = begin_search(uri=server.uri)
    cursor = Cursor(tmp_path / "searches" / "lm-1", CURSOR)

    def unsent() -> int:
        sent = cursor.read()
        return len(search.journal.entries) - (sent[0] if sent else 0)

    search.begin(0, make_spec())
    search.report(0, report(1, 2.0))
    search.flush()
    wait_for(lambda: unsent() == 0)
    getattr(server, fault)()
    times = call_times(search, 0, range(2, 500))
    start = time.perf_counter()
    search.begin(1, make_spec(seed=1))
    times += call_times(search, 1, range(1, 500))
    search.report(0, report(500, 1 / 500), outcome="finished")
    assert time.perf_counter() - start < 30
    check_at_once(times)
    wait_for(lambda: search.follower.problem)
    assert reason in str(search.follower.problem)
    requests = server.num_requests
    time.sleep(2.5)  # so that a run is asked for more than once
    assert server.num_requests - requests < 15
    assert stored_steps(store, 0) == [1]
    # reports of the first trial, start and reports of the second one
    assert unsent() == 498 + 1 + 499 + 1
    server.mend()
    search.report(1, report(500, 1 / 500), outcome="stopped at report 500")
    search.finish(best=0, best_val_loss=1.0)
    assert search.follower.problem is None
    assert unsent() == 0
    assert stored_steps(store, 0) == stored_steps(store, 1) == list(range(1, 501))
    time.sleep(0.5)  # a request that hung is served as well
    assert states(Record(store)) == [
        (0, "finished", "FINISHED"), (1, "stopped at report 500", "FINISHED")
    ]  # fmt: skip
    assert len(rows(store, "select * from metrics")) == 2 * 500 * 6 + 1


def test_projection_deletes_a_duplicate_run(
    begin_search: Begin, server: FaultyServer, store: str, make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Its creation timed out, and was served after the run had been created again."""
    search = begin_search(uri=server.uri)
    search.flush()
    runs = search.mlflow.runs
    create = runs.create

    def twice(number: int, start: RunStart) -> str:
        """Create a run whose answer is lost, and too late for the projection to find it."""
        monkeypatch.setattr(runs, "create", create)
        monkeypatch.setattr(runs, "children", lambda on_page: late() or [])
        raise TimeoutError

    def late() -> None:
        monkeypatch.undo()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        create(0, RunStart(make_spec(), ENVIRONMENT, 1000))

    monkeypatch.setattr(runs, "create", twice)
    search.trial(0, make_spec(), report(4, 2.0), outcome="finished")
    search.finish()
    name = "select lifecycle_stage from runs where name = 'lm-1/000' order by 1"
    assert rows(store, name) == [("active",), ("deleted",)]
    assert stored_steps(store, 0) == [4]
    assert search.run_of(0) == Record(store).trials(Record(store).search())[0].run_id


@pytest.mark.slow
def test_projection_waits_for_a_locked_database(
    begin_search: Begin, store: str, make_spec: MakeSpec
) -> None:
    """Another process writes to it for some seconds."""
    search = begin_search()
    search.begin(0, make_spec())
    search.flush()
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
        times = call_times(search, 0, range(1, 1000))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stored_steps_at_once(store)
        assert locker.poll() is None
        search.report(0, report(1000, 1 / 1000), outcome="finished")
        search.finish(best=0, best_val_loss=1.0)
    check_at_once(times)
    assert stored_steps(store, 0) == list(range(1, 1001))
    assert states(Record(store)) == [(0, "finished", "FINISHED")]


def stored_steps_at_once(store: str) -> None:
    path = store.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("select * from metrics").fetchall()


@pytest.mark.slow
def test_projection_outlasts_a_full_disk(
    tmp_path: Path, empty_store: Path, begin_search: Begin, make_spec: MakeSpec
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = empty_store.stat().st_size
    with small_disk(disk, size + 2_000_000, 1_900_000) as make_room:
        (disk / "mlflow.db").write_bytes(empty_store.read_bytes())
        store = f"sqlite:///{disk}/mlflow.db"
        search = begin_search(uri=store)
        search.begin(0, make_spec())
        search.flush()
        times = call_times(search, 0, range(1, 500))
        wait_for(lambda: search.follower.problem)
        assert "full" in str(search.follower.problem)
        check_at_once(times)
        make_room()
        search.report(0, report(500, 1 / 500), outcome="finished")
        search.finish(best=0, best_val_loss=1.0)
        assert search.follower.problem is None
        assert stored_steps(store, 0) == list(range(1, 501))


def test_projection_gives_up_on_a_server_that_hangs_at_the_end(
    begin_search: Begin, server: FaultyServer, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    search = begin_search(uri=server.uri)
    search.flush()
    server.hang()
    search.begin(0, make_spec())
    start = time.monotonic()
    for wait in (search.follower.flush, search.follower.close):
        problem = wait(1.0)
        assert problem is not None
        assert problem.endswith("(it does not answer); 'tuner sync lm-1' sends it later")
    assert time.monotonic() - start < 30  # a request takes a minute


@pytest.mark.slow
def test_interpreter_exits_while_the_server_hangs(
    server: FaultyServer, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The thread of the follower is in a request that may take a minute."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from model.spec.trial import TrialSpec\n"
        "from tests.tuner.tracking.recorded import RecordedSearch\n"
        "from tuner.home.home import Home\n"
        "search = RecordedSearch(Home(Path(sys.argv[3]), sys.argv[1]))\n"
        "search.flush()\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "search.begin(0, TrialSpec.model_validate_json(sys.argv[2]))\n"
        "time.sleep(1.5)\n"
        "print('end', flush=True)\n"
    )
    spec = make_spec().model_dump_json()
    command = [sys.executable, "-c", code, server.uri, spec, str(tmp_path)]
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
        assert time.monotonic() - start < 15  # the request takes a minute


def cpu_seconds(
    tokens: tuple[np.ndarray, np.ndarray], spec: TrialSpec, on_report: Callable[[Report], None]
) -> tuple[float, float, float]:
    """Seconds of the training thread, of its calls of the journal, and of other threads."""
    whole, own, logging_seconds = time.process_time(), time.thread_time(), 0.0
    for each in Engine(*tokens, slots=1).run([spec]):
        start = time.thread_time()
        on_report(each)
        logging_seconds += time.thread_time() - start
    own = time.thread_time() - own
    return own, logging_seconds, time.process_time() - whole - own


@pytest.mark.slow
def test_training_keeps_its_time_while_the_server_hangs(
    begin_search: Begin, server: FaultyServer, tokens: tuple[np.ndarray, np.ndarray],
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Less than 1 % is lost, in CPU seconds, which do not depend on the load of the machine.

    The thread of the follower can delay a step only by its own time in the interpreter.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    spec = make_spec(steps=400, reports=20, model={"d_model": 32})
    plain = cpu_seconds(tokens, spec, lambda _: None)[0]
    search = begin_search(uri=server.uri)
    search.flush()
    server.hang()
    requests = server.num_requests
    search.begin(0, spec)
    wait_for(lambda: server.num_requests > requests)
    own, logging_seconds, others = cpu_seconds(tokens, spec, partial(search.report, 0))
    assert server.num_requests == requests + 1  # it hung all the while
    server.mend()
    search.finish()
    assert search.mlflow.num_metrics == 20 * 6
    sys.stdout.write(
        f"{plain:.2f} s of CPU without a journal, {own:.2f} s with one, "
        f"{logging_seconds / own:.4%} of it to append; other threads {others / own:.4%}\n"
    )
    assert logging_seconds + others < 0.01 * own


def test_search_of_many_trials_is_read_in_more_time_than_the_patience(
    begin_search: Begin, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand runs take MLflow half a minute: every thousand of them are progress."""
    before = begin_search()
    before.begin(0, make_spec())
    before.finish("interrupted")
    clock = SharedClock()
    search = begin_search(is_followed=False)
    search.report(0, report(1, 2.0))
    search.follow(clock)
    children = search.mlflow.runs.children

    def slow(on_page: Callable[[], None]) -> list[TrialRecord]:
        for _ in range(4):
            clock.sleep(20.0)
            on_page()
        return children(on_page)

    monkeypatch.setattr(search.mlflow.runs, "children", slow)
    search.follower.start()
    search.flush()
    assert search.mlflow.num_created == 0
    assert clock.now() >= 80
