"""Searches that other processes run: followed by their journals, stopped, asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS, Simulation, outcomes, space_of
from tuner.cli import main
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.driver.view import SilentView
from tuner.errors import TunerError
from tuner.home import Home
from tuner.jobs import stop as stop_module
from tuner.jobs.followed_search import FollowedSearch
from tuner.jobs.status import SearchStatus, searches_of
from tuner.jobs.stop import stop
from tuner.jobs.submit import free_name
from tuner.journal.epoch import Holder, StopRequest, newest, request_stop
from tuner.journal.events import Event, Reported, SessionBegun, SessionEnded, TrialBegun
from tuner.journal.journal import Journal


class EventView(SilentView):
    """A view that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []

    def event(self, trial: Trial, message: str) -> None:
        self.events.append((trial.number, message))


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    """A complete search that no driver has run."""
    space = space_of(tmp_path, "trials: 9, sampler: random, scheduler: asha")
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    return simulation


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
    followed = FollowedSearch(home.search("lm-1"))
    followed.view = view = EventView()
    assert not followed.update()
    assert followed.board is None
    for number, event in enumerate(simulation.events):
        journal.append(event)
        if number % 3 == 0:
            assert followed.update()
            begun = sum(isinstance(e, TrialBegun) for e in simulation.events[: number + 1])
            if followed.board is not None and begun:
                known = [trial for trial in followed.board.trials.values() if trial.reports]
                assert len(known) <= begun
    followed.update()
    conductor = followed._conductor
    assert conductor is not None
    conductor.close()
    assert outcomes(conductor) == outcomes(simulation.conductor)
    reports = [event for event in simulation.events if isinstance(event, Reported)]
    shown = [number for number, text in view.events if text.startswith("report ")]
    assert shown == [event.number for event in reports], "each report is shown once"
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
    followed = FollowedSearch(home.search("lm-1"))
    followed.update()
    board = followed.board
    assert board is not None
    begun = next(i for i, e in enumerate(simulation.events) if isinstance(e, SessionBegun))
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
