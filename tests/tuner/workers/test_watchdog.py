"""The watchdog, against workers that answer when the test says so."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray

from tests.tuner.workers.scripted_workers import Clock, FakeWorker, hear_fakes
from tuner.workers import watchdog as health
from tuner.workers.watchdog import Watchdog, WorkerChange, WorkerEvent


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is killed, by the system or by Ray; answers come from the fakes."""
    found: list[Any] = []

    hear_fakes(monkeypatch)
    monkeypatch.setattr(ray, "kill", lambda handle, no_restart: found.append((handle, no_restart)))
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid, number)))
    monkeypatch.setattr(health, "_is_of_ray", lambda pid: pid != 99)
    return found


class Watch:
    """A watchdog over two workers, and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.workers, self.clock = [FakeWorker(), FakeWorker()], Clock()
        self.dog = Watchdog(self.workers, 60.0, self.clock)

    def pass_time(self, seconds: float, answering: dict[int, int]) -> list[WorkerChange]:
        """Look about each half second; some workers answer, with their pids."""
        changes = []
        for _ in range(round(seconds * 2)):
            self.clock.now += 0.5
            changes += self.dog.check()
            for worker, pid in answering.items():
                if self.workers[worker].asked:
                    self.workers[worker].answer(pid)
        return changes


@pytest.fixture
def watch(killed: list[Any]) -> Watch:
    return Watch()


def test_watchdog_leaves_those_alone_who_answer(watch: Watch, killed: list[Any]) -> None:
    assert watch.pass_time(600, {0: 11, 1: 12}) == []
    assert killed == []
    assert 200 < len(watch.workers[0].asked) <= 600, "about once a second"


def test_watchdog_kills_who_is_frozen(watch: Watch, killed: list[Any]) -> None:
    watch.pass_time(10, {0: 11, 1: 12})
    assert watch.pass_time(59, {0: 11}) == []
    assert watch.pass_time(5, {0: 11}) == [WorkerChange(1, WorkerEvent.FROZEN)]
    assert killed == [(12, 9)]
    assert watch.pass_time(100, {0: 11}) == [], "the new one has time to start"
    assert watch.pass_time(5, {0: 11, 1: 13}) == [WorkerChange(1, WorkerEvent.BACK)]


def test_watchdog_kills_on_another_machine_by_ray(watch: Watch, killed: list[Any]) -> None:
    watch.dog.check()
    watch.clock.now += 1
    watch.dog.check()
    watch.workers[0].answer(11, "elsewhere")
    watch.workers[1].answer(99)  # whose number another process has by now
    assert watch.pass_time(64, {}) == [
        WorkerChange(0, WorkerEvent.FROZEN),
        WorkerChange(1, WorkerEvent.FROZEN),
    ]
    assert killed == [(worker, False) for worker in watch.workers]


def test_watchdog_says_who_was_lost_and_came_back(watch: Watch, killed: list[Any]) -> None:
    watch.pass_time(10, {0: 11, 1: 12})
    watch.pass_time(2, {0: 11})
    watch.workers[1].die()
    assert watch.pass_time(2, {0: 11}) == [WorkerChange(1, WorkerEvent.LOST)]
    for _ in range(3):  # it is being started
        watch.workers[1].die()
        assert watch.pass_time(2, {0: 11}) == []
    assert watch.pass_time(2, {0: 11, 1: 13}) == [WorkerChange(1, WorkerEvent.BACK)]
    assert killed == []


def test_watchdog_lets_workers_start(watch: Watch, killed: list[Any]) -> None:
    assert watch.pass_time(590, {0: 11}) == []
    assert watch.pass_time(20, {0: 11}) == [WorkerChange(1, WorkerEvent.FROZEN)]
    assert killed == [(watch.workers[1], False)], "no process is known"


def test_watchdog_that_slept_blames_nobody(watch: Watch, killed: list[Any]) -> None:
    """A suspended machine: the driver and the workers wake together."""
    watch.pass_time(10.5, {0: 11, 1: 12})
    watch.pass_time(1.5, {})
    watch.clock.now += 3600
    assert watch.pass_time(30, {}) == []
    assert watch.pass_time(10, {0: 11, 1: 12}) == []
    assert killed == []
