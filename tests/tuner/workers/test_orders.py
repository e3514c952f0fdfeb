"""Which worker trains which trial, with workers that only record their calls."""

from __future__ import annotations

from typing import Any

import pytest

from model.engine.report import Report, Status
from tuner.workers.assignment import Assignment
from tuner.workers.orders import Orders


class FakeWorker:
    def __init__(self, calls: list[tuple[Any, ...]], index: int) -> None:
        self._calls, self._index = calls, index

    def __getattr__(self, name: str) -> Any:
        class Method:
            def remote(_, *arguments: Any) -> None:  # noqa: N805 - `self` is the worker
                self._calls.append((self._index, name, *arguments))

        return Method()


class Team:
    def __init__(self, workers: int, **options: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.orders = Orders([FakeWorker(self.calls, i) for i in range(workers)], **options)

    def start(self, number: int, lane: int) -> None:
        worker = self.orders.worker_of(lane)
        self.orders.start(Assignment(str(number), worker, "{}"))

    @property
    def workers(self) -> dict[int, int]:
        return {number: order.worker for number, order in self.orders.running.items()}


def test_each_lane_has_its_worker() -> None:
    team = Team(2)
    for number in range(4):
        team.start(number, lane=number)
    assert team.workers == {0: 0, 1: 1, 2: 0, 3: 1}


def test_orders_wait_until_they_are_sent() -> None:
    team = Team(1)
    team.start(0, lane=0)
    assert team.calls == []
    team.orders.drop()
    team.orders.send()
    assert team.calls == []


def test_search_begins_with_the_first_worker_and_spreads_as_others_come() -> None:
    """The trials that wait for a slot move; those that train stay."""
    team = Team(3, slots=2, are_up=False)
    team.orders.welcome(1)
    for number in range(6):
        team.start(number, lane=number)
    assert set(team.workers.values()) == {1}
    team.orders.send()
    team.calls.clear()
    team.orders.welcome(0, lambda number: 0)
    assert team.workers == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 0}
    team.orders.welcome(2, lambda number: 0)
    assert team.workers == {0: 1, 1: 1, 2: 2, 3: 2, 4: 0, 5: 0}
    team.orders.send()
    stops = [call for call in team.calls if call[1] == "stop"]
    assert [(worker, trial, keep) for worker, _, trial, _, keep in stops] == [
        (1, "5", True), (1, "4", True), (1, "3", True), (1, "2", True),
    ]  # fmt: skip
    team.orders.welcome(2, lambda number: 0)
    assert team.workers == {0: 1, 1: 1, 2: 2, 3: 2, 4: 0, 5: 0}


def test_trials_of_a_missing_worker_go_to_those_with_the_fewest() -> None:
    team = Team(3)
    for number in range(3):
        team.start(number, lane=number)
    assert team.orders.miss(0, {0: 8})
    assert team.workers == {0: 1, 1: 1, 2: 2}
    assert team.orders.running[0].after == 8
    assert team.orders.running[0].source == ("0", 8)
    assert team.orders.miss(1, {0: 8, 1: 0})
    assert set(team.workers.values()) == {2}
    assert not team.orders.miss(2, {0: 8, 1: 0, 2: 0}), "nobody is left"
    assert team.orders.worker_of(1) == 1


def test_trials_of_missing_workers_go_to_the_first_that_comes() -> None:
    """Also if it had none of them, and more than its slots: nobody knows who comes back."""
    team = Team(3)
    for number in range(3):
        team.start(number, lane=number)
    for worker in range(3):
        team.orders.miss(worker, dict.fromkeys(team.orders.of_worker(worker), 0))
    assert set(team.workers.values()) == {2}
    team.orders.welcome(1, lambda number: 8)
    assert set(team.workers.values()) == {1}
    assert {order.after for order in team.orders.running.values()} == {8}


@pytest.mark.parametrize("others_fail", [False, True])
def test_worker_on_which_trials_fail_in_a_row_is_left_out(others_fail: bool) -> None:
    """Unless they fail on the others as well: then it is not the node."""
    team = Team(2)
    left_out = []
    for number in range(0, 8, 2):
        team.start(number, lane=0)
        team.start(number + 1, lane=1)
        if others_fail:
            assert team.orders.failed(number + 1) is None
        else:
            team.orders.taken(number + 1, 8)
        left_out.append(team.orders.failed(number))
        team.orders.stop(number, keep=False)
    assert left_out == ([None] * 4 if others_fail else [None, None, 0, None])
    if not others_fail:
        team.orders.welcome(0)
        assert team.orders.worker_of(0) == 1, "it stays out"


def test_a_report_ends_a_row_of_failures() -> None:
    team = Team(2)
    for number in range(4):
        team.start(number, lane=0)
        if number == 2:
            team.orders.taken(number, 8)
        assert team.orders.failed(number) is None


def _branch(step: int) -> Assignment:
    """Cool-down of trial 3 from its update 8, which has copies of two of its reports."""
    reports = tuple(Report("3", Status.TRAINING, s, 10 * s, 2.0, 2.0, 1.0, 0.1) for s in (4, 8))
    return Assignment("5", 0, "{}", step, ("3", 8), reports)


def test_branch_whose_worker_died_begins_again_from_its_trunk() -> None:
    """Until it has a state of its own: the copied reports are of states that its trunk has."""
    team = Team(1)
    team.orders.start(_branch(0))
    for step, source in ((4, ("3", 8)), (8, ("3", 8)), (12, ("5", 12))):
        team.orders.start_again(5, step)
        order = team.orders.running[5]
        assert (order.after, order.source, order.is_reused) == (step, source, False)


def test_states_that_others_need_are_not_pruned() -> None:
    team = Team(1)
    team.start(3, lane=0)
    team.orders.taken(3, 12, {8, 4, 12})
    team.orders.taken(3, 16, {16})
    team.orders.send()
    prunes = [call[2:] for call in team.calls if call[1] == "prune_checkpoints"]
    assert prunes == [("3", 12, (4, 8)), ("3", 16)]
