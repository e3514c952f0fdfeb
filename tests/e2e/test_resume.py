"""A search resumes after any interruption, and ends as without it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command_process import Run
from tests.e2e.conftest import Workplace, make_workplace
from tests.e2e.s3_server import BUCKET, S3Server, S3Workplace
from tests.e2e.test_faults import descendants
from tuner.journal.events import Reported, SessionBegun, SessionEnded, TrialBegun
from tuner.journal.journal import JOURNAL_FILE, read_journal
from tuner.storage.mirror import mirrored
from tuner.storage.storage import Storage
from tuner.tracking.record import Record

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TUNER_TEST_KILLS", "1"))  # more find more, 10 s each
ONE_WORKER = ("search", "--space", "small.yaml", "--workers", "1", "--trials", "9")
ONE_WORKER += ("--set", "engine.slots=2")  # more than one trial under way


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def whole(place: Workplace) -> list[tuple[Any, ...]]:
    """A search on one worker that nobody disturbed."""
    run = place.tuner(*ONE_WORKER, "--name", "whole", "--home", "undisturbed")
    assert run.status == 0, run.err
    return story(place.folder / "undisturbed", "whole")


def story(home: Path, name: str) -> list[tuple[Any, ...]]:
    """All that a search decided and measured, in order: suggestions, reports, winner."""
    events: list[tuple[Any, ...]] = []
    for event in read_journal(home / "searches" / name):
        if isinstance(event, TrialBegun):
            events.append(("trial", event.number, event.draw, event.spec))
        elif isinstance(event, Reported):
            numbers = ("step", "status", "val_loss", "train_loss", "grad_norm", "learning_rate")
            events.append(("report", event.number, *(getattr(event.report, n) for n in numbers)))
        elif isinstance(event, SessionEnded) and event.status == "finished":
            events.append(("end", event.best))
    return events


def check_store(home: Path, name: str, best_run: str) -> None:
    """One run for the search and for each trial, one version of each best trial: no more."""
    record = Record(f"sqlite:///{home}/mlflow.db")
    client, search = record.client, record.search(name)
    runs = client.search_runs([search.experiment_id])
    numbers = [trial.number for trial in record.trials(search)]
    assert numbers == list(range(len(numbers)))
    assert len(runs) == 1 + len(numbers)
    assert all(len(run.inputs.dataset_inputs) == 2 for run in runs)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    versions = [version.run_id for version in client.search_model_versions()]
    assert best_run in versions
    assert len(set(versions)) == len(versions)
    assert len(client.search_logged_models([search.experiment_id])) == len(versions)


def wait_for_session(process: subprocess.Popen[str], journal: Path) -> None:
    """Until this driver has journaled that it begins."""

    def sessions() -> int:
        return sum(isinstance(event, SessionBegun) for event in read_journal(journal))

    before = sessions()
    while sessions() == before and process.poll() is None:
        time.sleep(0.05)


def interrupt(process: subprocess.Popen[str]) -> None:
    """SIGTERM after a third report: the search takes the reports under way and ends.

    A job scheduler sends it to all processes, but Ray's are needed until the search has ended.
    """
    assert process.stderr is not None
    for line in process.stderr:
        if "report 3/" in line:
            break
    for pid in (process.pid, *descendants(process.pid, "")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    err = process.stderr.read()
    assert process.wait() == 143, err
    assert "ended by SIGTERM: waiting for the reports under way" in err


def refuse_a_second_driver(place: Workplace, process: subprocess.Popen[str], *resume: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "report 1/" in line:
            break
    second = place.tuner(*resume)
    assert second.status == 2
    assert f"process {process.pid}" in second.err


def replace_a_stopped_driver(
    place: Workplace, home: Path, check: Callable[[Run], None], *command: str
) -> None:
    """The driver that comes next finishes the search; when the first wakes, it writes nothing.

    The search is checked before: a request that MLflow serves as a driver falls asleep may come.
    """
    folder = home / "searches" / "it"
    with place.start(*command) as stopped, killed_if_it_fails(stopped):
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if "  report " in line:
                break
        time.sleep(0.5)  # Ray's threads send its last order, which else arrives when it wakes
        stopped.send_signal(signal.SIGSTOP)
        while is_locked(home / "mlflow.db"):  # the next driver could not open the store
            stopped.send_signal(signal.SIGCONT)
            time.sleep(0.1)
            stopped.send_signal(signal.SIGSTOP)
        wait_until_all_threads_sleep(stopped.pid)  # one may be writing the heartbeat
        os.utime(newest_epoch(folder), (0, 0))  # as if it slept for years
        run = place.tuner(*command)
        assert run.status == 0, run.err
        check(run)
        data, files = (folder / JOURNAL_FILE).read_bytes(), files_of(folder)
        stopped.send_signal(signal.SIGCONT)
        err = stopped.stderr.read()
        assert stopped.wait() == 3, err
    assert re.search(r"process \d+ on \S+, since .*, has taken over the search it; this", err)
    assert (folder / JOURNAL_FILE).read_bytes() == data
    assert files_of(folder) == files


def wait_until_all_threads_sleep(pid: int) -> None:
    """A thread that is in the kernel as the signal comes stops when it leaves it."""
    until = time.monotonic() + 60
    while any(state_of(task) != "T" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.01)


def state_of(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def is_locked(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0.1)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


@contextmanager
def killed_if_it_fails(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that sleeps would be waited for without an end, and the failure never be seen."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def files_of(folder: Path) -> list[Path]:
    """All but those of Ray Tune, which nobody reads, and states.

    The worker of a driver that sleeps is awake, and writes the state of the report under way.
    """
    others = {"tune", "checkpoints"}
    return sorted(path for path in folder.rglob("*") if others.isdisjoint(path.parts))


def check_undisturbed(place: Workplace, home: Path, whole: list[tuple[Any, ...]], run: Run) -> None:
    assert story(home, "it") == whole
    if run.json["unsynced"]:  # the other driver may have fallen asleep with the lock of SQLite
        return
    shown = place.tuner("show", "--search", "it", "--home", str(home), "--json").json
    numbers = [trial["trial"] for trial in shown["trials"]]
    assert sorted(numbers) == list(range(len(numbers)))
    assert all(trial["status"] != "running" for trial in shown["trials"])
    check_store(home, "it", run.json["best_run"])


def newest_epoch(folder: Path) -> Path:
    return max((folder / "epochs").iterdir())


def test_search_that_is_killed_and_interrupted_ends_as_if_undisturbed(
    place: Workplace, whole: list[tuple[Any, ...]]
) -> None:
    """One search meets all of it, so that one search has to be trained, by one command.

    A second driver is refused; SIGTERM ends the first, SIGKILL the next as it trains, and the
    third sleeps while the last one finishes.
    """
    home, draw = place.folder / "disturbed", random.Random(0)
    search: tuple[str, ...] = (*ONE_WORKER, "--name", "it", "--home", str(home), "--json")
    journal = home / "searches" / "it"
    with place.start(*search) as process:
        refuse_a_second_driver(place, process, *search)
        interrupt(process)
    before = story(home, "it")
    assert before == whole[: len(before)]
    for kill in range(KILLS):
        with place.start(*search, on_ray=False) as process:
            if kill % 2:  # while it starts; else while it trains
                time.sleep(draw.uniform(0.0, 6.0))
            else:
                wait_for_session(process, journal)
                time.sleep(draw.uniform(0.0, 0.5 / KILLS))  # it trains for seconds
            assert process.poll() is None, "it was done before it was killed often enough"
            process.send_signal(signal.SIGKILL)
    check = partial(check_undisturbed, place, home, whole)
    replace_a_stopped_driver(place, home, check, *search)


_DOWN_SECONDS = 12.0  # of a server: a client tries for eight


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path)
    server.start()
    yield server
    server.stop()


def test_search_in_a_bucket_survives_its_machine(
    place: Workplace, whole: list[tuple[Any, ...]], server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The driver and its disk are lost; while another goes on, the server is down for a while."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    check_that_one_driver_claims_an_epoch()
    home, there = place.folder / "lost", S3Workplace(place.folder, variables=server.variables)
    search = (*ONE_WORKER, "--name", "it", "--home", str(home), "--json")
    search += ("--set", f"engine.storage=s3://{BUCKET}/searches")
    bucket = Storage(f"s3://{BUCKET}/searches/it")
    with there.start(*search, on_ray=False) as process:
        lines_until(process, "report 3/")
        while b'{"event":"report"' not in (mirrored(bucket) or b""):  # sent once a second
            assert process.poll() is None, "it was done before its journal was sent"
            time.sleep(0.05)
        process.kill()
    home.rename(place.folder / "gone")
    assert bucket.files("checkpoints")
    with there.start(*search, stdout=subprocess.PIPE, on_ray=False) as process:
        seen = lines_until(process, "  report ")
        server.stop()
        time.sleep(_DOWN_SECONDS)  # it may have trained all before a request fails
        server.start()
        out, err = process.communicate(timeout=300)
    err = "".join([*seen, err])
    assert process.returncode == 0, err
    assert re.search(r"s3://\S+ has it: its journal, \d+ events, was copied to", err)
    assert err.count("does not answer: Could not connect") <= 1
    assert "the storage lacks" not in err
    assert story(home, "it") == whole
    check_store(home, "it", json.loads(out.splitlines()[-1])["best_run"])
    assert mirrored(bucket) == (home / "searches" / "it" / JOURNAL_FILE).read_bytes()
    assert bucket.names("epochs") == ["0001", "0002"]
    states = bucket.files("checkpoints")
    assert states, "the best weights outlive this machine as well"
    assert len(states) <= 4


def check_that_one_driver_claims_an_epoch() -> None:
    """On a server of S3, of many that try at one time."""
    storage = Storage(f"s3://{BUCKET}/race")

    def claim(number: int) -> bool:
        try:
            storage.create("epochs/0001", f"driver {number}".encode())
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(claim, range(8)))
    assert storage.read("epochs/0001") == f"driver {wins.index(True)}".encode()
    assert sum(wins) == 1


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read the progress of a search up to a line."""
    lines: list[str] = []
    assert process.stderr is not None
    while not lines or text not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    return lines


def test_search_grows_on_resume_and_trains_nothing_twice(
    place: Workplace, whole: list[tuple[Any, ...]]
) -> None:
    home = str(place.folder / "undisturbed")
    grow = ("search", "--resume", "whole", "--home", home, "--json", "--trials", "12")
    run = place.tuner(*grow, "--max-time", "1h")
    assert run.status == 0, run.err
    changes = "another search.trials and search.max_seconds"
    assert f"whole goes on from its journal, with {changes}\n" in run.err
    after = story(place.folder / "undisturbed", "whole")
    assert after[: len(whole)] == whole
    assert run.json["trials"] == 12
    check_store(place.folder / "undisturbed", "whole", run.json["best_run"])
    specs = [line[3] for line in after if line[0] == "trial"]
    assert len(set(specs)) == len(specs)
    for arguments, reason in (
        (("--trials", "6"), "fewer search.trials"),
        (("--set", "budget.tokens=24000"), "cannot be changed"),
        (("--space", "small.yaml", "--set", "model.d_model=32"), "another model.d_model"),
    ):
        refused = place.refused("search", "--resume", "whole", "--home", home, *arguments)
        assert reason in refused.err
        assert "allowed" in refused.err


def test_search_takes_finished_trials_from_the_record(place: Workplace) -> None:
    home = str(place.folder / "undisturbed")
    again = place.tuner(*ONE_WORKER, "--name", "again", "--home", home, "--json")
    assert again.status == 0, again.err
    first, second = (
        place.tuner("show", "--search", name, "--home", home, "--json").json["trials"]
        for name in ("whole", "again")
    )
    losses = [
        {t["trial"]: t["metrics"]["val_loss"] for t in trials if t["confirms"] is None}
        for trials in (first, second)
    ]
    assert losses[0][0] == losses[1][0]
    finished = [t for t in first if t["status"] == "finished" and t["confirms"] is None]
    assert len(finished) >= 2
    most = (9 - 1) * 12_000  # the defaults at least are not trained
    assert again.json["tokens_spent"] < most
    assert again.json["confirmation_tokens"] == 0
