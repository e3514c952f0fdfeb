"""What follows the result of a session: the model registry and the report."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import MakeSpec
from tests.tuner.results.finished_search import result_in
from tests.tuner.simulated_search import FACTS, Simulation
from tuner.conductor.conductor import Conductor
from tuner.driver import session as module
from tuner.driver.interrupt import Interrupts
from tuner.driver.training import TrainingResult
from tuner.driver.view import SilentView
from tuner.errors import Interrupted, Replaced, ResultError, StoreError
from tuner.home.home import Home
from tuner.journal.events import (
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialFailed,
)
from tuner.journal.fold import Search
from tuner.journal.follower import Follower, Projection
from tuner.journal.journal import Journal, read_search
from tuner.journal.lines import Entry
from tuner.lease.folder import FolderLeases
from tuner.lease.holder import Holder
from tuner.space.space import SearchSpace

FREE = SimpleNamespace(check_epoch=lambda: None)  # a journal that no other driver has claimed


@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_signal_ends_the_publication_and_says_what_is_left(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is complete already, and `tuner sync` publishes the rest."""
    interrupts, done = Interrupts(), []

    def register(*_: Any) -> None:
        done.append("model")
        if number is not None:
            interrupts.handle(number, None)

    monkeypatch.setattr(module, "register_model", register)
    monkeypatch.setattr(module, "attach_report", lambda *_: done.append("report"))
    start: Any = SimpleNamespace(
        name="lm-1", home=None, view=SilentView(), journal=FREE, interrupts=interrupts
    )
    problem = module._publish(start, result_in(tmp_path))
    if number is None:
        assert (done, problem) == (["model", "report"], None)
    else:
        assert done == ["model"]
        assert problem == "interrupted before writing the report; 'tuner sync lm-1' does it"


def test_search_that_was_interrupted_gets_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal that ended the training must not end the publication."""
    done = []
    monkeypatch.setattr(module, "register_model", lambda *_: done.append("model"))
    monkeypatch.setattr(module, "attach_report", lambda *_: done.append("report"))
    interrupts = Interrupts()
    interrupts.handle(signal.SIGINT, None)
    result = module.replace(result_in(tmp_path), signal=signal.SIGINT)
    start: Any = SimpleNamespace(
        name="lm-1", home=None, view=SilentView(), journal=FREE, interrupts=interrupts
    )
    assert module._publish(start, result) is None
    assert done == ["model", "report"]


def test_search_that_sigterm_ends_leaves_the_publication_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender kills some seconds later."""
    done: list[str] = []
    monkeypatch.setattr(module, "register_model", lambda *_: done.append("model"))
    interrupts = Interrupts()
    interrupts.handle(signal.SIGTERM, None)
    result = module.replace(result_in(tmp_path), signal=signal.SIGTERM)
    start: Any = SimpleNamespace(name="lm-1", interrupts=interrupts)
    problem = module._publish(start, result)
    text = "ended by SIGTERM before registering the model; 'tuner sync lm-1' does it"
    assert (problem, done) == (text, [])


class MlflowStub(Projection):
    """The record of a search, as far as a session needs it.

    Args:
        done: what the session did, in order.
    """

    name = "the tracking store"

    def __init__(self, done: list[str], *, is_down: bool = False) -> None:
        self._done, self._is_down, self._has_end = done, is_down, False
        self.run_ids = {0: "run0"}
        self.runs, self.is_open = SimpleNamespace(run_id="run", experiment_id="1"), True

    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        self._has_end = isinstance(entry.event, SessionEnded)

    def send(self) -> None:
        if self._is_down:
            raise StoreError("the store is down")
        if self._has_end:
            self._has_end = False
            self._done.append("recorded")

    def problem(self, reason: str) -> str:
        return f"MLflow lacks part of lm-1 ({reason})"

    def close(self) -> None:
        self._done.append("closed")


@pytest.fixture
def make_start(tmp_path: Path, space: SearchSpace) -> Iterator[Callable[..., Any]]:
    """Makes what the steps of a start leave: a search that is begun, and its folders."""
    folder = tmp_path / "home" / "searches" / "lm-1"
    with contextlib.closing(Journal.open(folder)) as journal, contextlib.ExitStack() as ray:
        journal.append(SearchBegun(space, "", FACTS))
        journal.append(SessionBegun({}, 1, in_order=True))
        for name in ("checkpoints", "tune"):
            (folder / name).mkdir()

        def make(done: list[str], **more: Any) -> Any:
            given = {
                "home": Home.at(tmp_path / "home"), "name": "lm-1", "folder": folder,
                "checkpoints": folder / "checkpoints", "journal": journal, "recorded": None,
                "mlflow": MlflowStub(done), "mirror": None, "storage": None, "space": space,
                "view": SilentView(), "interrupts": Interrupts(), "ray": ray, "began": 0.0,
                "request": SimpleNamespace(on_result=lambda result: done.append("shown")),
            }  # fmt: skip
            return SimpleNamespace(**(given | more))

        yield make


def trains(halted: str | None = None, count: int = 12) -> Callable[..., TrainingResult]:
    """Return what trains in a session: each trial makes all its reports, in one slot."""

    def train(start: Any, followers: Sequence[Follower]) -> TrainingResult:
        conductor = Conductor(start.space, FACTS, 1)
        simulation = Simulation(conductor, [SearchBegun(start.space, "", FACTS)])
        while simulation.step() and (halted is None or len(simulation.events) < count):
            pass
        for event in simulation.events[1:]:
            start.journal.append(event)
        return TrainingResult(halted, conductor.limit, 1, 1.0, 2.5)

    return train


def test_driver_that_was_replaced_deletes_and_publishes_nothing(
    make_start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns so when its training has ended."""
    done: list[str] = []
    start = make_start(done)
    FolderLeases(start.folder).create(Holder.me(epoch=2))

    def fail(start: Any, followers: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(module, "train", fail)
    data = start.journal.path.read_bytes()
    with pytest.raises(Replaced, match=f"process {os.getpid()} on .* has taken over the search"):
        module.run_session(start)
    assert done in ([], ["closed"])
    assert start.checkpoints.is_dir()
    assert (start.folder / "tune").is_dir()
    assert start.journal.path.read_bytes() == data
    with pytest.raises(Replaced):
        module._publish(start, result_in(tmp_path))
    start.journal._waiting.clear()  # the fixture closes it


def test_ray_ends_after_the_result_is_shown(
    make_start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray may end the whole process while it shuts down: then nothing may be left to lose."""
    done: list[str] = []
    start = make_start(done)
    start.ray.callback(done.append, "Ray has ended")
    monkeypatch.setattr(module, "train", trains())
    monkeypatch.setattr(module, "_publish", lambda *_: done.append("published"))
    result = module.run_session(start)
    assert done[:3] == ["recorded", "closed", "shown"]
    assert sorted(done[3:]) == ["Ray has ended", "published"]
    assert not start.checkpoints.exists()
    assert not (start.folder / "tune").exists()
    search = read_search(start.folder)
    assert search is not None
    assert search.end is not None
    assert (search.end.status, search.end.first_turn) == ("finished", 2.5)
    assert search.end.best == result.best.number == (search.board.best and search.board.best.number)
    assert search.end.summary == result.summary()
    assert (result.run_ids, result.run_id, result.problem) == ({0: "run0"}, "run", None)


def test_store_that_fails_after_the_training_keeps_the_result_and_the_checkpoints(
    make_start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    start = make_start(done)
    start.mlflow = MlflowStub(done, is_down=True)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(module, "train", trains())
    result = module.run_session(start)
    assert result.problem == "MLflow lacks part of lm-1 (the store is down)"
    assert "shown" in done
    assert start.checkpoints.is_dir(), "`tuner sync` sends them"
    search = read_search(start.folder)
    assert search is not None
    assert search.end is not None
    assert search.end.status == "finished"


def test_store_that_cannot_be_opened_ends_the_session_at_once(
    make_start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow opens it as the first trials train."""
    done: list[str] = []
    start = make_start(done)
    start.mlflow = MlflowStub(done, is_down=True)

    def train(start: Any, followers: Any) -> TrainingResult:
        raise StoreError("a newer MLflow made it")

    def flush(self: Follower, patience_seconds: float) -> str:
        patience.append(patience_seconds)
        return "it is down"

    patience: list[float] = []
    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(Follower, "flush", flush)
    with pytest.raises(StoreError, match="a newer MLflow made it"):
        module.run_session(start)
    assert patience == [0.0], "nobody waits"
    assert "shown" not in done


def test_halted_session_ends_as_interrupted_and_keeps_the_checkpoints(
    make_start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    start = make_start(done)
    monkeypatch.setattr(module, "train", trains("max_seconds"))
    monkeypatch.setattr(module, "_publish", lambda *_: None)
    result = module.run_session(start)
    assert (result.status, result.halted, result.advice) == ("interrupted", "max_seconds", [])
    assert start.checkpoints.is_dir()
    search = read_search(start.folder)
    assert search is not None
    assert search.end is not None
    assert (search.end.status, search.end.halted) == ("interrupted", "max_seconds")


@pytest.mark.parametrize(
    ("halted", "error", "status", "message"),
    [
        (None, ResultError, "failed", "no trial of lm-1 has a result: failed: out of memory; if "),
        ("interrupted", Interrupted, "interrupted", None),
        ("stopped", Interrupted, "interrupted", None),
    ],
)
def test_session_without_a_report_has_no_result(
    make_start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, make_spec: MakeSpec,
    halted: str | None, error: type[BaseException], status: str, message: str | None,
) -> None:  # fmt: skip
    done: list[str] = []
    start = make_start(done)

    def train(start: Any, followers: Any) -> TrainingResult:
        start.journal.append(TrialBegun(0, {}, make_spec()))
        if halted is None:
            start.journal.append(TrialFailed(0, "out of memory"))
        return TrainingResult(halted, None, 1, 1.0, 2.5)

    monkeypatch.setattr(module, "train", train)
    with pytest.raises(error, match=message) as raised:
        module.run_session(start)
    if halted is not None:
        assert raised.value.signal == (0 if halted == "stopped" else signal.SIGINT)
    assert done == ["recorded", "closed"]
    search = read_search(start.folder)
    assert search is not None
    assert search.end is not None
    assert search.end.status == status
