"""What follows the result of a session: the model registry and the report."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.driver import session as module
from tuner.driver.interrupt import Interrupts
from tuner.driver.view import SilentView
from tuner.errors import Interrupted, Replaced
from tuner.home import Home
from tuner.journal.events import SessionEnded
from tuner.journal.journal import Journal
from tuner.lease.folder import FolderLeases
from tuner.lease.holder import Holder

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
    view = SimpleNamespace(phase=lambda message: None)
    context: Any = SimpleNamespace(name="lm-1", home=None, view=view, journal=FREE)
    problem = module._publish(context, result_in(tmp_path), interrupts)
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
    context: Any = SimpleNamespace(
        name="lm-1", home=None, view=SimpleNamespace(phase=lambda message: None), journal=FREE
    )
    assert module._publish(context, result, interrupts) is None
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
    context: Any = SimpleNamespace(name="lm-1")
    problem = module._publish(context, result, interrupts)
    text = "ended by SIGTERM before registering the model; 'tuner sync lm-1' does it"
    assert (problem, done) == (text, [])


def test_driver_that_was_replaced_deletes_and_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns so when its training has ended."""
    checkpoints, calls = tmp_path / "lm-1" / "checkpoints", []
    journal = Journal.open(tmp_path / "lm-1")
    checkpoints.mkdir()
    (tmp_path / "lm-1" / "tune").mkdir()
    FolderLeases(tmp_path / "lm-1").create(Holder.me(epoch=2))

    def fail(context: Any, interrupts: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(module, "train", fail)
    tracker = SimpleNamespace(
        add_artifact=None, finish=None, close=lambda: calls.append("closed"), flush=None
    )
    context: Any = SimpleNamespace(
        name="lm-1", folder=tmp_path / "lm-1", checkpoints=checkpoints, journal=journal,
        tracker=tracker,
    )  # fmt: skip
    with pytest.raises(Replaced, match=f"process {os.getpid()} on .* has taken over the search"):
        module.run_search(context, Interrupts(), 0.0, calls.append)
    assert calls == ["closed"]
    assert checkpoints.is_dir()
    assert (tmp_path / "lm-1" / "tune").is_dir()
    with pytest.raises(Replaced):
        module._publish(context, result_in(tmp_path), Interrupts())


def test_ray_ends_after_the_result_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray may end the whole process while it shuts down: then nothing may be left to lose."""
    done: list[str] = []
    board: Any = SimpleNamespace(trials={}, ended=[])
    conductor = SimpleNamespace(board=board)
    training = SimpleNamespace(conductor=conductor)
    monkeypatch.setattr(module, "train", lambda *_: training)
    monkeypatch.setattr(module, "_result", lambda *_: result_in(tmp_path))
    monkeypatch.setattr(module, "_kept_trials", lambda *_: [])
    monkeypatch.setattr(module, "_end", lambda *_: SessionEnded("finished"))
    monkeypatch.setattr(module, "_publish", lambda *_: done.append("published"))
    tracker = SimpleNamespace(
        add_artifact=lambda *_, **__: None, finish=lambda *_, **__: done.append("recorded"),
        close=lambda: None, flush=lambda: None, run_of=lambda number: None, keep_checkpoint=None,
    )  # fmt: skip
    folder = tmp_path / "lm-1"
    with contextlib.ExitStack() as ray, contextlib.closing(Journal.open(folder)) as journal:
        ray.callback(done.append, "Ray has ended")
        context: Any = SimpleNamespace(
            home=Home.at(tmp_path), name="lm-1", folder=folder, checkpoints=folder / "checkpoints",
            journal=journal, tracker=tracker, view=SilentView(), storage=None, ray=ray,
        )  # fmt: skip
        module.run_search(context, Interrupts(), 0.0, lambda result: done.append("shown"))
    assert done[:2] == ["recorded", "shown"]
    assert sorted(done[2:]) == ["Ray has ended", "published"]
