"""Searches that other processes run: followed by their journals, stopped, asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.simulated_search import Simulation, outcomes
from tuner.cli import main
from tuner.commands.jobs import stop as stop_command
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial
from tuner.driver.view import SilentView, ViewProjection
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs import stop as stop_module
from tuner.jobs.status import SearchStatus, TailedSearch, searches_of
from tuner.jobs.stop import stop
from tuner.jobs.submit import _LOGGED, free_name, submit_to_ray
from tuner.journal.events import Event, Reported, SessionBegun, SessionEnded
from tuner.journal.follower import Follower
from tuner.journal.journal import Journal, JournalTail, read_search
from tuner.lease.folder import newest
from tuner.lease.holder import Holder
from tuner.lease.stop_request import StopRequest, request_stop
from tuner.notify.receivers import URLS, receivers_of


class EventView(SilentView):
    """A view that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []
        self.board: Board | None = None
        self.title = ""
        self.num_ends = 0

    def begin(self, board: Board, title: str) -> None:
        self.board, self.title = board, title

    def end(self) -> None:
        self.num_ends += 1

    def event(self, trial: Trial, message: str) -> None:
        self.events.append((trial.number, message))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.of(tmp_path / "home")


def written(home: Home, events: Sequence[Event], name: str = "lm-1") -> Journal:
    journal = Journal.open(home.search(name))
    for event in events:
        journal.append(event)
    return journal


def test_search_is_followed_while_its_journal_grows(simulation: Simulation, home: Home) -> None:
    """In pieces of any size, also where a report is read before the trial that it leads to."""
    journal = written(home, ())
    tailed = TailedSearch(home.search("lm-1"))
    tailed.update()
    assert tailed.search is None
    for number, event in enumerate([*simulation.events, SessionEnded("finished")]):
        journal.append(event)
        if number % 3 == 0:
            tailed.update()
            assert tailed.search is not None
            assert tailed.search.num_events == number + 1
    tailed.update()
    assert tailed.search is not None
    assert outcomes(tailed.search) == outcomes(simulation.conductor)
    journal.close()


def test_each_new_report_is_shown_once(simulation: Simulation, home: Home) -> None:
    """As `tuner attach` does: what was there before is not, and the view has the trials."""
    half = len(simulation.events) // 2
    journal, view = written(home, simulation.events[:half]), EventView()
    tail = JournalTail(home.search("lm-1"))
    follower = Follower(ViewProjection(view, "lm-1"), tail, from_now=True).start()
    follower.flush(10)
    assert view.board is not None
    assert (view.title, view.events) == ("lm-1", [])
    for event in (*simulation.events[half:], SessionEnded("finished")):
        journal.append(event)
    assert follower.close(10) is None
    reports = [event for event in simulation.events[half:] if isinstance(event, Reported)]
    shown = [number for number, text in view.events if text.startswith("report ")]
    assert shown == [event.number for event in reports]
    assert outcomes(view) == outcomes(simulation.conductor)
    assert view.num_ends == 1
    journal.close()


def test_time_of_a_followed_search_is_that_of_its_events(
    simulation: Simulation, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time_ns", lambda: int(clock[0] * 1e9))
    monkeypatch.setattr(time, "time", lambda: clock[0])
    journal = written(home, ())
    for event in simulation.events[:20]:
        clock[0] += 2
        journal.append(event)
    clock[0] += 3
    search = read_search(home.search("lm-1"))
    assert search is not None
    begun = next(i for i, e in enumerate(simulation.events) if isinstance(e, SessionBegun))
    board = search.board
    assert board.seconds == pytest.approx(2 * (20 - begun - 1) + 3)
    assert 0 < board.tokens_per_second < board.tokens / board.seconds * 2
    journal.close()


def test_status_of_searches(
    simulation: Simulation, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    half = written(home, simulation.events[: len(simulation.events) // 2], "lm-1")
    status = SearchStatus.of(home, "lm-1")
    assert status.state == "running"
    assert 0 < status.ended < status.trials <= simulation.conductor.board.num_trials
    assert status.driver.startswith("process ")
    assert status.tokens > 0
    half.close()
    assert SearchStatus.of(home, "lm-1").state == "interrupted"
    events = [*simulation.events, SessionEnded("finished")]
    written(home, events, "lm-2").close()
    done = SearchStatus.of(home, "lm-2")
    board = simulation.conductor.board
    assert (done.state, done.ended, done.trials) == ("finished", len(board.ended), board.num_trials)
    assert board.best is not None
    assert (done.best, done.best_trial) == (board.value(board.best), board.best.number)
    assert done.tokens == board.tokens
    starting = Journal.open(home.search("lm-3"))
    assert SearchStatus.of(home, "lm-3").state == "starting"
    starting.close()
    assert searches_of(home) == ["lm-1", "lm-2", "lm-3"]
    with pytest.raises(TunerError, match="there is no search lm-4"):
        SearchStatus.of(home, "lm-4")
    assert main(["status", "--home", str(home.root)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("lm-1", "interrupted", "lm-2", "finished"))
    assert main(["status", "lm-1", "--home", str(home.root)]) == 0
    assert f"'tuner submit --resume lm-1 --home {home.root}' goes on" in capsys.readouterr().out
    assert main(["status", "lm-3", "--home", str(home.root)]) == 0
    begin = f"'tuner search --space FILE --name lm-3 --home {home.root}' begins it"
    assert f"lm-3: interrupted\nit has trained nothing; {begin}" in capsys.readouterr().out
    assert main(["status", "lm-9", "--home", str(home.root)]) == 2


def test_status_of_a_damaged_journal_says_so(simulation: Simulation, home: Home) -> None:
    journal = written(home, simulation.events)
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[len(data) // 2] ^= 1
    journal.path.write_bytes(bytes(data))
    status = SearchStatus.of(home, "lm-1")
    assert status.state == "unknown"
    assert status.problem is not None
    assert "does not match its checksum" in status.problem


@pytest.mark.parametrize("request_", list(StopRequest))
def test_driver_sees_the_request_to_stop(home: Home, request_: StopRequest) -> None:
    journal = written(home, ())
    folder = home.search("lm-1")
    assert journal.stop_request() is None
    holder = newest(folder)
    assert holder is not None
    request_stop(folder, holder, request_)
    assert journal.stop_request() is request_
    journal.check_epoch()
    journal.close()
    later = Journal.open(folder)
    assert later.epoch == holder.epoch + 1
    assert later.stop_request() is None, "the request was to the driver before"
    later.close()


def test_now_counts_more_than_soon(home: Home) -> None:
    journal = written(home, ())
    holder = newest(home.search("lm-1"))
    assert holder is not None
    for request in (StopRequest.SOON, StopRequest.NOW):
        request_stop(home.search("lm-1"), holder, request)
        assert journal.stop_request() is request
    journal.close()


def test_stop_of_a_search_that_has_not_begun_says_that_it_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its driver frees the name, as nothing was recorded."""
    journal = Journal.open(home.search("lm-2"))

    def end(name: str, home: Home, **_: object) -> None:
        journal.close()
        shutil.rmtree(home.search(name))

    monkeypatch.setattr(stop_command, "stop", end)
    assert main(["stop", "lm-2", "--home", str(home.root), "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert json.loads(out[-1]) == {"name": "lm-2", "state": "not begun"}


def test_stop_waits_for_the_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = written(home, ())
    asked: list[Holder] = []

    def end(holder: Holder) -> None:
        asked.append(holder)
        journal.close()

    stop("lm-1", home, on_wait=end)
    assert len(asked) == 1
    for name, reason in (("lm-1", "nothing runs lm-1"), ("lm-7", "there is no search lm-7")):
        with pytest.raises(TunerError, match=reason):
            stop(name, home)
    again = Journal.open(home.search("lm-1"))
    monkeypatch.setattr(stop_module, "_PATIENCE_SECONDS", 0.01)
    with pytest.raises(TunerError, match=r"does not answer; stop it there by 'kill \d+'"):
        stop("lm-1", home, now=True)
    again.close()


@pytest.mark.parametrize("make", [Home.search, Home.log])
def test_submitted_search_gets_a_new_name(home: Home, make: Callable[[Home, str], Path]) -> None:
    assert free_name("lm", home) == "lm-1"
    path = make(home, "lm-1")
    path.parent.mkdir(parents=True)
    path.touch()
    assert free_name("lm", home) == "lm-2"


@pytest.mark.parametrize("command", ["submit", "logs"])
@pytest.mark.parametrize("strange", ["file", "folder", "pipe", "no file"])
def test_log_is_never_a_link_or_a_pipe(
    home: Home,
    tmp_path: Path,
    command: str,
    strange: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a driver was started"))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "mine").write_text("mine")
    home.search("lm-1").mkdir(parents=True)
    log = home.log("lm-1")
    if strange == "folder":
        log.parent.symlink_to(tmp_path / "victim")
        (log.parent / "lm-1.log").write_text("mine")
    else:
        log.parent.mkdir()
    if strange == "file":
        log.symlink_to(tmp_path / "victim" / "mine")
    elif strange == "pipe":
        os.mkfifo(log)
    elif strange == "no file":
        log.mkdir()
    names = sorted(path.name for path in (tmp_path / "victim").iterdir())
    arguments = ["submit", "--resume"] if command == "submit" else ["logs"]
    assert main([*arguments, "lm-1", "--home", str(home.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a link" in line or "is no regular file" in line
    assert sorted(path.name for path in (tmp_path / "victim").iterdir()) == names
    assert {path.read_text() for path in (tmp_path / "victim").iterdir()} == {"mine"}


def test_urls_of_receivers_stay_off_the_command_line(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every user of the machine can read the command lines of all processes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv(URLS, "https://a.example/S3CRET")
    started: list[tuple[Sequence[str], dict[str, str]]] = []

    class Process:
        pid = 7

        def __init__(self, command: Sequence[str], *, env: dict[str, str], **_: object) -> None:
            started.append((command, env))

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    home.search("lm-1").mkdir(parents=True)
    arguments = ["--notify", "https://b.example/S3CRET", "--not=https://c.example/S3CRET"]
    arguments = ["--resume", "lm-1", *arguments, "--quiet", "--home", str(home.root)]
    assert main(["submit", *arguments]) == 0
    ((command, environment),) = started
    assert "S3CRET" not in " ".join(command)
    assert command[3:7] == ["search", "--resume", "lm-1", "--quiet"]
    assert environment[URLS].split() == [f"https://{x}.example/S3CRET" for x in "abc"]
    monkeypatch.setenv(URLS, environment[URLS])
    names = [receiver.name for receiver in receivers_of(())]
    assert names == [f"https://{x}.example/…" for x in "abc"]


@pytest.mark.slow
def test_job_of_ray_writes_to_the_log(home: Home, tmp_path: Path) -> None:
    (home.root / "logs").mkdir(parents=True)
    command = [sys.executable, "-c", _LOGGED, str(home.root), "lm-1"]
    command += ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]
    assert subprocess.run(command, check=False).returncode == 3
    assert home.log("lm-1").read_text() == "out\nerr\n"
    home.log("lm-1").unlink()
    home.log("lm-1").symlink_to(tmp_path / "victim")
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert not (tmp_path / "victim").exists()


@pytest.mark.slow
def test_job_of_ray_is_the_command_with_its_log(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entrypoint runs as it does on the head of a cluster: by a shell."""
    jobs: list[dict[str, Any]] = []

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "http://head:8265"

        def submit_job(self, **job: Any) -> str:
            jobs.append(job)
            return "job-1"

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    home.root.mkdir()
    urls = ["https://a.example/S3CRET"]
    submit_to_ray("lm-1", home, ["--resume", "lm-1"], "http://head:8265", urls)
    (job,) = jobs
    assert "S3CRET" not in job["entrypoint"]
    assert job["runtime_env"] == {"env_vars": {URLS: urls[0]}}
    assert subprocess.run(["/bin/sh", "-c", job["entrypoint"]], check=False).returncode == 2
    begun, reason = home.log("lm-1").read_text().splitlines()
    assert begun.endswith("  tuner search, lm-1")
    assert "there is no search lm-1" in reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["attach", "lm-1"], "there is no search lm-1"),
        (["logs", "lm-1"], "there is no search lm-1"),
        (["stop", "lm-1"], "there is no search lm-1"),
        (["submit", "--space", "nothing.yaml"], "nothing.yaml"),
        (["submit", "--resume", "lm-1", "--address", "http://127.0.0.1:1"], "takes no job"),
    ],
)
def test_bad_input_is_one_sentence(
    home: Home, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--home", str(home.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
