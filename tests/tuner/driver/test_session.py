"""What follows the result of a session: the model registry and the report."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.driver import session as module
from tuner.driver.interrupt import Interrupts


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
    context: Any = SimpleNamespace(name="lm-1", home=None, view=view)
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
    interrupts.handle(signal.SIGTERM, None)
    result = module.replace(result_in(tmp_path), signal=signal.SIGTERM)
    context: Any = SimpleNamespace(
        name="lm-1", home=None, view=SimpleNamespace(phase=lambda message: None)
    )
    assert module._publish(context, result, interrupts) is None
    assert done == ["model", "report"]
