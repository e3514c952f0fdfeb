"""The adapter to Ray Tune, without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution import class_cache

from tests.tuner.workers.scripted_workers import Clock
from tuner.driver import ray_tune
from tuner.driver.ray_tune import StartBarrier, TuneCallback, TuneScheduler, TuneSearcher
from tuner.workers.assignment import Assignment


class FakeDriver:
    """Hands out some assignments and records its calls."""

    def __init__(self, *numbers: int) -> None:
        self.ready = [Assignment(str(number), 0, "{}") for number in numbers]
        self.calls: list[tuple[Any, ...]] = []
        self.is_over = False

    @property
    def has_ready_assignments(self) -> bool:
        return bool(self.ready)

    def next_assignment(self) -> Assignment | None:
        return self.ready.pop(0) if self.ready else None

    def release_reports(self) -> None:
        self.calls.append(("release_reports",))

    def record_report(self, number: int, report: Any) -> bool:
        self.calls.append(("record_report", number, report))
        return number == 0

    def fail(self, number: int, reason: str) -> None:
        self.calls.append(("fail", number, reason))

    def tick(self) -> None:
        self.calls.append(("tick",))


def make_adapter(driver: Any) -> tuple[TuneSearcher, TuneCallback, Clock]:
    clock = Clock()
    barrier = StartBarrier(driver, clock)
    return TuneSearcher(driver, barrier), TuneCallback(driver, barrier), clock


def tune_trial(number: int | None) -> Any:
    assignment = None if number is None else Assignment(str(number), 0, "{}")
    return SimpleNamespace(config={"assignment": assignment}, error_file=None)


def test_searcher_suggests_assignments_until_the_search_is_over() -> None:
    driver = FakeDriver(3)
    searcher, _, _ = make_adapter(driver)
    assert searcher.suggest("a") == {"assignment": Assignment("3", 0, "{}"), "wait_seconds": 0.0}
    assert searcher.suggest("b") is None
    driver.is_over = True
    assert searcher.suggest("b") == searcher.FINISHED


def test_a_client_without_assignment_waits_and_keeps_its_process() -> None:
    driver = FakeDriver(0, 1)
    searcher, _, _ = make_adapter(driver)
    searcher.suggest("a")
    searcher.suggest("b")
    assert searcher.suggest("c") is None, "no client is free, and a third is not needed"
    searcher.on_trial_complete("a")
    assert searcher.suggest("c") == {"assignment": None, "wait_seconds": 0.2}
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c")
    driver.ready.append(Assignment("2", 0, "{}"))
    assert searcher.suggest("d") == {"assignment": Assignment("2", 0, "{}"), "wait_seconds": 0.0}


def test_many_waiting_clients_ask_seldom() -> None:
    """Their questions together would keep the driver busy."""
    clients = [f"{number}" for number in range(64)]
    searcher, _, _ = make_adapter(FakeDriver(*range(64)))
    for client in clients:
        searcher.suggest(client)
    waits = []
    for client in clients:
        searcher.on_trial_complete(client)
        waits.append(searcher.suggest(f"{client}, next")["wait_seconds"])  # type: ignore[index]
    assert waits[:3] == pytest.approx([0.2, 0.4, 0.6])
    assert waits[-1] == 3.0
    for client in clients[1:]:
        searcher.on_trial_complete(f"{client}, next")
    assert searcher.suggest("the last one") == {"assignment": None, "wait_seconds": 0.4}


@pytest.mark.parametrize(("ready", "is_over"), [(False, False), (True, False), (False, True)])
def test_a_client_waits_until_there_is_an_assignment_or_the_end(ready: bool, is_over: bool) -> None:
    driver: Any = FakeDriver(*([0] if ready else []))
    driver.is_over = is_over
    scheduler = TuneScheduler(driver)
    verdict = scheduler.on_trial_result(None, tune_trial(None), {"report": None})
    assert verdict == (scheduler.STOP if ready or is_over else scheduler.CONTINUE)
    _, callback, _ = make_adapter(driver)
    callback.on_trial_start(0, [], tune_trial(None))
    callback.on_trial_error(0, [], tune_trial(None))
    assert driver.calls == [], "a client that waits is no trial of the driver"


def test_scheduler_stops_a_trial_as_the_driver_says() -> None:
    driver: Any = FakeDriver()
    scheduler = TuneScheduler(driver)
    verdicts = [scheduler.on_trial_result(None, tune_trial(n), {"report": "r"}) for n in (0, 1)]
    assert verdicts == [scheduler.CONTINUE, scheduler.STOP]
    assert driver.calls == [("record_report", 0, "r"), ("record_report", 1, "r")]


def test_reports_are_held_back_until_all_first_clients_are_up() -> None:
    driver = FakeDriver(0, 1, 2)
    searcher, callback, _ = make_adapter(driver)
    searcher.suggest("a")
    searcher.suggest("b")
    callback.on_trial_start(0, [], tune_trial(0))
    callback.on_trial_start(0, [], tune_trial(1))
    assert driver.calls == [], "no client has been requested for trial 2"
    searcher.suggest("c")
    callback.on_trial_start(0, [], tune_trial(2))
    assert driver.calls == [("release_reports",)]
    driver.ready.append(Assignment("3", 0, "{}"))
    searcher.suggest("d")
    callback.on_trial_start(0, [], tune_trial(3))
    assert driver.calls == [("release_reports",)], "only once"


def test_reports_do_not_wait_for_a_failed_client() -> None:
    driver = FakeDriver(0, 1)
    searcher, callback, _ = make_adapter(driver)
    searcher.suggest("a")
    searcher.suggest("b")
    callback.on_trial_error(0, [], tune_trial(0))
    assert driver.calls == [("fail", 0, "for an unknown reason")]
    callback.on_trial_start(0, [], tune_trial(1))
    assert driver.calls[1:] == [("release_reports",)]


@pytest.mark.parametrize(("seconds", "is_released"), [(119.0, False), (121.0, True)])
def test_reports_wait_two_minutes_for_the_first_clients(seconds: float, is_released: bool) -> None:
    driver = FakeDriver(0)
    searcher, callback, clock = make_adapter(driver)
    searcher.suggest("a")
    clock.now += seconds
    callback.on_step_begin(0, [])
    callback.on_step_begin(0, [])
    assert driver.calls.count(("release_reports",)) == is_released


def test_tune_copies_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray logs what Tune copies into the settings of its trials."""
    names = set(class_cache.ENV_VARS_TO_PROPAGATE) | {"AWS_SECRET_ACCESS_KEY", "OTHER"}
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", names)
    ray_tune._hide_credentials()
    assert not [name for name in names if name.startswith("AWS_")]
    assert "OTHER" in names
