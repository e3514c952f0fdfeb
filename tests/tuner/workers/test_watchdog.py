"""The watchdog, with fake workers that answer when the test says so."""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from tests.tuner.workers.scripted_workers import Clock, FakeWorker, patch_ray
from tuner.workers import watchdog as watchdog_module
from tuner.workers.nodes import Node
from tuner.workers.watchdog import Watchdog, WorkerChange, WorkerEvent


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls that kill, by the system or by Ray."""
    calls: list[Any] = []

    patch_ray(monkeypatch)
    monkeypatch.setattr(ray, "kill", lambda handle, no_restart: calls.append((handle, no_restart)))
    monkeypatch.setattr(os, "kill", lambda pid, number: calls.append((pid, number)))
    monkeypatch.setattr(watchdog_module, "_is_ray_process", lambda pid: pid != 99)
    monkeypatch.setattr(watchdog_module, "live_nodes", list)
    return calls


FROZEN = WorkerEvent.FROZEN, "it did not answer for 60 seconds"


LOST = WorkerChange(
    1,
    WorkerEvent.LOST,
    f"The actor {b'0'.hex() * 16} is unavailable: gone. The task may or may not have been executed "
    f"on the actor.",
)


class FakeNodes:
    """Nodes of a cluster: what each lacks; None if that is not known yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lacks: dict[str, str | None] = {platform.node(): ""}
        self.live = [platform.node()]
        nodes = [Node(node, node, 1, 0) for node in self.live]
        self.lost: dict[str, str] = {}
        monkeypatch.setattr(watchdog_module, "live_nodes", lambda: nodes)
        monkeypatch.setattr(watchdog_module, "lost_nodes", lambda: self.lost)

    def lack(self, node_id: str) -> str | None:
        return self.lacks[node_id]


class Watch:
    """A watchdog over two workers, and a fake clock."""

    def __init__(self, nodes: FakeNodes | None = None) -> None:
        self.workers, self.clock = [FakeWorker(), FakeWorker()], Clock()
        checks: Any = nodes
        self.dog = Watchdog(self.workers, 60.0, self.clock, nodes=checks)

    def pass_time(self, seconds: float, answering: dict[int, int]) -> list[WorkerChange]:
        """Check each half second; some workers answer, with their pids.

        Returns:
            The changes but the first answers.
        """
        changes = []
        for _ in range(round(seconds * 2)):
            self.clock.now += 0.5
            changes += [c for c in self.dog.check() if c.event is not WorkerEvent.UP]
            for worker, pid in answering.items():
                if self.workers[worker].asked:
                    self.workers[worker].answer(pid)
        return changes


@pytest.fixture
def watch(killed: list[Any]) -> Watch:
    return Watch()


def test_watchdog_leaves_workers_that_answer(watch: Watch, killed: list[Any]) -> None:
    assert watch.pass_time(600, {0: 11, 1: 12}) == []
    assert killed == []
    assert 200 < len(watch.workers[0].asked) <= 600, "about once a second"


def test_watchdog_says_when_a_worker_is_up(watch: Watch) -> None:
    watch.dog.check()
    watch.clock.now += 1
    watch.dog.check()
    watch.workers[1].answer(12)
    assert watch.dog.check() == [WorkerChange(1, WorkerEvent.UP)]
    assert watch.pass_time(10, {1: 12}) == []


def test_watchdog_kills_frozen_workers(watch: Watch, killed: list[Any]) -> None:
    watch.pass_time(10, {0: 11, 1: 12})
    assert watch.pass_time(59, {0: 11}) == []
    assert watch.pass_time(5, {0: 11}) == [WorkerChange(1, *FROZEN)]
    assert killed == [(12, 9)]
    assert watch.pass_time(100, {0: 11}) == [], "the new one has time to start"
    assert watch.pass_time(5, {0: 11, 1: 13}) == [WorkerChange(1, WorkerEvent.BACK)]


def test_watchdog_kills_through_ray_on_another_machine(watch: Watch, killed: list[Any]) -> None:
    watch.dog.check()
    watch.clock.now += 1
    watch.dog.check()
    watch.workers[0].answer(11, "elsewhere")
    watch.workers[1].answer(99)  # a pid that another process has by now
    assert watch.pass_time(64, {}) == [
        WorkerChange(0, *FROZEN),
        WorkerChange(1, *FROZEN),
    ]
    assert killed == [(worker, False) for worker in watch.workers]


def test_watchdog_reports_lost_workers_and_their_return(watch: Watch, killed: list[Any]) -> None:
    watch.pass_time(10, {0: 11, 1: 12})
    watch.pass_time(2, {0: 11})
    watch.workers[1].die()
    assert watch.pass_time(2, {0: 11}) == [LOST]
    for _ in range(3):  # Ray is restarting it
        watch.workers[1].die()
        assert watch.pass_time(2, {0: 11}) == []
    assert watch.pass_time(2, {0: 11, 1: 13}) == [WorkerChange(1, WorkerEvent.BACK)]
    assert killed == []


def test_watchdog_kills_a_worker_that_was_out_of_reach(watch: Watch, killed: list[Any]) -> None:
    """The calls of that time were lost: it may train what it should not, or miss a trial."""
    watch.pass_time(10, {0: 11, 1: 12})
    watch.pass_time(2, {0: 11})
    watch.workers[1].die()
    assert watch.pass_time(2, {0: 11}) == [LOST]
    assert watch.pass_time(2, {0: 11, 1: 12}) == []
    assert killed[:1] == [(12, 9)]
    assert watch.pass_time(2, {0: 11, 1: 13}) == [WorkerChange(1, WorkerEvent.BACK)]


def test_watchdog_gives_a_worker_up_that_does_not_restart(watch: Watch, killed: list[Any]) -> None:
    """It may restart later: the event comes as long as it does not."""
    watch.pass_time(10, {0: 11, 1: 12})
    changes = []
    for _ in range(305):
        changes += watch.pass_time(2, {0: 11})
        watch.workers[1].die()
    gone = WorkerChange(1, WorkerEvent.GONE, "did not restart within 600 seconds")
    missing = WorkerChange(1, WorkerEvent.MISSING)
    assert changes == [LOST, missing, *[gone] * (len(changes) - 2)]
    assert 3 <= len(changes) < 8
    assert watch.pass_time(3, {0: 11, 1: 13})[-1] == WorkerChange(1, WorkerEvent.BACK)


def test_watchdog_waits_for_a_node_of_a_cluster(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the worker is missing, and if it is back because its node is lost."""
    nodes = FakeNodes(monkeypatch)
    nodes.lacks |= dict.fromkeys(["lost", "another"], "")
    watch = Watch(nodes)
    watch.pass_time(10, {0: 11})
    watch.workers[1].answer(12, "lost")
    assert watch.pass_time(2, {0: 11}) == []
    assert watch.dog.up == {0, 1}
    changes = []
    for _ in range(500):
        watch.workers[1].die()
        changes += watch.pass_time(2, {0: 11})
    assert changes == [LOST, WorkerChange(1, WorkerEvent.MISSING)]
    assert watch.dog.up == {0}
    watch.workers[1].answer(12, "another")
    assert watch.pass_time(2, {0: 11}) == [WorkerChange(1, WorkerEvent.BACK, lost_node=True)]


def test_watchdog_says_once_that_a_node_is_lost(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray knows it some time after the workers died, and one is back elsewhere before."""
    nodes = FakeNodes(monkeypatch)
    nodes.lacks |= {"b": "", "c": ""}
    watch = Watch(nodes)
    for worker, pid in ((0, 11), (1, 12)):
        watch.pass_time(2, {})
        watch.workers[worker].answer(pid, "b")
    watch.pass_time(2, {})
    assert watch.dog.up == {0, 1}
    watch.workers[1].die()
    assert watch.pass_time(2, {}) == [LOST]
    watch.workers[1].answer(13, "c")
    assert [change.event for change in watch.pass_time(2, {})] == [WorkerEvent.BACK]
    nodes.lost = {"before": "a (10.0.0.1)", "b": "b (10.0.0.2)"}
    lost = WorkerChange(1, WorkerEvent.NODE_LOST, node=("b", "b (10.0.0.2)"))
    assert watch.pass_time(2, {}) == [lost]
    watch.workers[0].die()
    assert [change.event for change in watch.pass_time(5, {})] == [WorkerEvent.LOST]


def test_worker_that_died_on_a_live_node_and_is_back_on_another_is_not_excused(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial may be the reason of its death."""
    nodes = FakeNodes(monkeypatch)
    nodes.lacks["another"] = ""
    watch = Watch(nodes)
    watch.pass_time(10, {0: 11, 1: 12})
    watch.pass_time(2, {0: 11})
    watch.workers[1].answer(12, "another")
    assert watch.pass_time(2, {0: 11}) == [WorkerChange(1, WorkerEvent.BACK)]


def test_worker_on_a_node_that_cannot_train_is_not_up(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its node is known; when Ray has moved it to another one, it is."""
    nodes = FakeNodes(monkeypatch)
    nodes.lacks["foreign"] = None
    watch = Watch(nodes)
    changes = []
    for second in range(20):
        if second == 10:
            nodes.lacks["foreign"] = "has torch 1.0"
        changes += watch.pass_time(2, {0: 11})
        if watch.workers[1].asked:
            watch.workers[1].answer(12, "foreign")
    assert changes == [WorkerChange(1, WorkerEvent.MISSING, "has torch 1.0")]
    assert watch.dog.up == {0}
    for _ in range(20):
        watch.workers[1].die()
        assert watch.pass_time(2, {0: 11}) == []
    watch.dog.check()
    watch.workers[1].answer(13)
    watch.clock.now += 1
    assert watch.dog.check() == [WorkerChange(1, WorkerEvent.UP)]
    assert watch.dog.up == {0, 1}


def test_watchdog_gives_a_worker_up_that_ray_gave_up(watch: Watch, killed: list[Any]) -> None:
    watch.pass_time(10, {0: 11, 1: 12})
    watch.pass_time(2, {0: 11})
    watch.workers[1].asked[-1].value = ActorDiedError()
    (change,) = watch.pass_time(1, {0: 11})
    assert (change.worker, change.event) == (1, WorkerEvent.GONE)
    assert change.reason.startswith("cannot be restarted: The actor died")


def test_worker_of_a_drained_node_is_not_given_up(watch: Watch, killed: list[Any]) -> None:
    """Ray 2.60 says that such an actor has died, and restarts it elsewhere."""
    watch.pass_time(10, {0: 11, 1: 12})
    changes = []
    for _ in range(3):
        changes += watch.pass_time(2, {0: 11})
        watch.workers[1].asked[-1].value = error = ActorDiedError()
        error._preempted = True
    changes += watch.pass_time(2, {0: 11, 1: 13})
    assert [change.event for change in changes] == [WorkerEvent.LOST, WorkerEvent.BACK]


def test_watchdog_gives_workers_time_to_start(watch: Watch, killed: list[Any]) -> None:
    assert watch.pass_time(590, {0: 11}) == []
    assert watch.pass_time(20, {0: 11}) == [WorkerChange(1, *FROZEN)]
    assert killed == [(watch.workers[1], False)], "the pid is unknown"


def test_watchdog_ignores_its_own_suspension(watch: Watch, killed: list[Any]) -> None:
    """A suspended machine: driver and workers resume together."""
    watch.pass_time(10.5, {0: 11, 1: 12})
    watch.pass_time(1.5, {})
    watch.clock.now += 3600
    assert watch.pass_time(30, {}) == []
    assert watch.pass_time(10, {0: 11, 1: 12}) == []
    assert killed == []
