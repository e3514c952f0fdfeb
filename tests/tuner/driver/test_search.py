"""The frame of a search: exceptions of a session that is made up."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tuner.driver import search as module
from tuner.driver.interrupt import Interrupts
from tuner.errors import Interrupted, JournalError, TunerError
from tuner.home import Home


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
    assert module._run(context(), Interrupts(), 0.0, print) is result
    full = JournalError("cannot write the journal: No space left on device")
    assert module._run(context(full), Interrupts(), 0.0, print).lost == str(full)


@pytest.mark.parametrize("name", [None, "mine"])
def test_workers_start_again_if_the_store_has_the_name(name: str | None, tmp_path: Path) -> None:
    """The store is open only after the workers have started."""
    home, started, ended = Home.at(tmp_path), [], []
    taken = name or "lm-1"
    store: Any = SimpleNamespace(
        wait=lambda interrupts: SimpleNamespace(searches=lambda: [SimpleNamespace(name=taken)])
    )

    def start(claimed: str) -> Any:
        started.append(claimed)
        return SimpleNamespace(end=lambda: ended.append(claimed))

    space: Any = SimpleNamespace(name="lm")
    if name is None:
        claimed, journal, _ = module._claim(store, space, name, home, start, Interrupts())
        journal.close()
        assert (claimed, started, ended) == ("lm-2", ["lm-1", "lm-2"], ["lm-1"])
        assert [path.name for path in home.search("").iterdir()] == ["lm-2"]
    else:
        with pytest.raises(TunerError, match="mine is recorded already"):
            module._claim(store, space, name, home, start, Interrupts())
        assert (ended, list(home.search("").iterdir())) == (["mine"], [])


def test_signal_while_the_store_opens_frees_the_name(tmp_path: Path) -> None:
    home, interrupts, may_open = Home.at(tmp_path), Interrupts(), threading.Event()
    store = module._Store(home, None, opened=lambda uri: may_open.wait(30))  # type: ignore
    store.open()

    def start(claimed: str) -> Any:
        interrupts.handle(signal.SIGTERM, None)

    space: Any = SimpleNamespace(name="lm")
    with pytest.raises(Interrupted):
        module._claim(store, space, None, home, start, interrupts)
    may_open.set()
    assert list(home.search("").iterdir()) == []


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
        module._run(context(), Interrupts(), 0.0, print)
    assert (raised.value.signal, raised.value.search) == (number, "lm-1")
