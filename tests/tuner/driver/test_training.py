"""The time before the first worker is up, and after the last trial."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.workers.scripted_workers import Clock
from tuner.driver import training
from tuner.driver.training import first_workers
from tuner.driver.view import SilentView
from tuner.workers import cluster
from tuner.workers.watchdog import WorkerChange, WorkerEvent

UNFIT = WorkerChange(0, WorkerEvent.MISSING, "node b has torch 1.0")
UP = WorkerChange(1, WorkerEvent.UP)
GONE = [WorkerChange(n, WorkerEvent.GONE, "cannot be restarted") for n in (0, 1)]


class Start:
    """Two workers that start, with a change a second, and what a user sees of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *changes: WorkerChange | None) -> None:
        self.changes, self.texts = list(changes), list[str]()
        self.chosen: list[int] = []
        clock = Clock()
        monkeypatch.setattr(training.time, "monotonic", clock)
        monkeypatch.setattr(
            training.time, "sleep", lambda seconds: setattr(clock, "now", clock.now + 1)
        )

    def check(self) -> list[WorkerChange]:
        change = self.changes.pop(0)
        return [] if change is None else [change]

    def choose(self, worker: int) -> None:
        self.chosen.append(worker)

    def wait(self) -> list[int]:
        this: Any = self
        view = SilentView()
        view.phase = self.texts.append  # type: ignore[method-assign]
        return first_workers(this, this, 2, lambda: None, view, lambda: "waiting for a worker")


def test_search_begins_with_the_first_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(monkeypatch, None, UNFIT, GONE[0], UP)
    assert start.wait() == [1]
    assert start.chosen == [1]
    assert start.texts == ["worker 0 is not used: node b has torch 1.0"]


def test_search_says_once_that_it_waits_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(monkeypatch, *[None] * 60, UP)
    assert start.wait() == [1]
    assert start.texts == ["waiting for a worker"]


def test_search_fails_when_no_worker_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(monkeypatch, GONE[0], GONE[0], GONE[1])
    assert start.wait() == []
    assert start.chosen in ([0], [1]), "which raises the reason"


@pytest.mark.parametrize(
    ("halted", "is_urgent", "seconds"),
    [(None, False, 60.0), ("interrupted", False, 10.0), ("interrupted", True, 0.3)],
)
@pytest.mark.parametrize("missing", [0, 2])
def test_session_waits_for_states_and_says_which_the_storage_lacks(
    monkeypatch: pytest.MonkeyPatch,
    halted: str | None,
    is_urgent: bool,
    seconds: float,
    missing: int,
) -> None:
    waits: list[float] = []
    texts: list[str] = []

    def send_states(workers: list[Any], longest: float) -> int:
        waits.append(longest)
        return missing

    monkeypatch.setattr(cluster, "send_states", send_states)
    start: Any = SimpleNamespace(
        interrupts=SimpleNamespace(is_urgent=is_urgent), view=SimpleNamespace(phase=texts.append)
    )
    training._send_states(start, [], halted)
    assert waits == [seconds]
    lacks = [
        "the storage lacks the newest states of 2 trials: where they are needed, the trial trains "
        "again from an earlier one"
    ]
    assert texts == ["sending the last states to the storage", *(lacks if missing else [])]
