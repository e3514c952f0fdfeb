"""The frame of a search: exceptions of a session that is made up."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.driver import search as module
from tuner.driver.interrupt import Interrupts
from tuner.errors import Interrupted, JournalError


def context(error: Exception | None = None) -> Any:
    def close() -> None:
        if error is not None:
            raise error

    return SimpleNamespace(name="lm-1", journal=SimpleNamespace(close=close))


def test_result_stays_when_the_journal_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_in(tmp_path)
    monkeypatch.setattr(module, "run_search", lambda *arguments: result)
    assert module._run(context(), Interrupts(), 0.0) is result
    full = JournalError("cannot write the journal: No space left on device")
    assert module._run(context(full), Interrupts(), 0.0).lost == str(full)


@pytest.mark.parametrize(
    ("error", "number"),
    [(Interrupted(signal.SIGTERM), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGINT)],
)
def test_signal_names_the_search(
    error: KeyboardInterrupt, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "run_search", run)
    with pytest.raises(Interrupted) as raised:
        module._run(context(), Interrupts(), 0.0)
    assert (raised.value.signal, raised.value.search) == (number, "lm-1")
