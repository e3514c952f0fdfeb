"""The adapter to Ray Tune, without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution import class_cache

from tuner.driver import ray_tune
from tuner.driver.ray_tune import Clients, TuneCallback, TuneScheduler, TuneSearcher, groups


class FakeDriver:
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.is_over = False

    def record(self, batches: Any) -> None:
        self.calls.append(("record", batches))

    def fail_trials(self, workers: Any, reason: str) -> None:
        self.calls.append(("fail_trials", workers, reason))

    def tick(self) -> None:
        self.calls.append(("tick",))


class Adapter:
    """Searcher, scheduler and callback around a fake driver."""

    def __init__(self, *groups: tuple[int, ...]) -> None:
        self.driver: Any = FakeDriver()
        clients = Clients(self.driver, groups)
        self.searcher, self.callback = TuneSearcher(clients), TuneCallback(clients)
        self.scheduler = TuneScheduler(self.driver)

    def fail(self, name: str) -> None:
        self.callback.on_trial_error(0, [], tune_trial(name))
        self.searcher.on_trial_complete(name, error=True)


def tune_trial(name: str) -> Any:
    return SimpleNamespace(trial_id=name, error_file=None)


@pytest.mark.parametrize(
    ("workers", "slots", "sizes"),
    [(1, 1, [1]), (2, 2, [2]), (2, 128, [1, 1]), (8, 128, [4, 4]), (65, 65, [64, 1])],
)
def test_a_client_serves_at_most_64_slots(workers: int, slots: int, sizes: list[int]) -> None:
    found = groups(workers, slots)
    assert [len(group) for group in found] == sizes
    assert [index for group in found for index in group] == list(range(workers))


def test_searcher_suggests_a_client_for_each_group_until_the_search_is_over() -> None:
    adapter = Adapter((0, 1), (2,))
    suggest = adapter.searcher.suggest
    assert suggest("a") == {"workers": (0, 1)}
    assert suggest("b") == {"workers": (2,)}
    assert suggest("c") is None
    adapter.driver.is_over = True
    assert suggest("c") == adapter.searcher.FINISHED


def test_group_of_a_client_that_failed_gets_another() -> None:
    adapter = Adapter((0, 1), (2,))
    adapter.searcher.suggest("a")
    adapter.searcher.suggest("b")
    adapter.fail("a")
    assert adapter.searcher.suggest("c") == {"workers": (0, 1)}
    assert adapter.searcher.suggest("d") is None
    assert adapter.driver.calls == []


def test_trials_fail_when_their_client_fails_three_times_in_a_row() -> None:
    adapter = Adapter((0, 1))
    for name in "abcdef":
        adapter.searcher.suggest(name)
        if name == "c":
            adapter.callback.on_trial_result(0, [], tune_trial(name), {})
        adapter.fail(name)
        assert bool(adapter.driver.calls) == (name >= "e")
    assert adapter.driver.calls[0] == ("fail_trials", (0, 1), "for an unknown reason")


@pytest.mark.parametrize("is_over", [False, True])
def test_clients_end_with_the_search(is_over: bool) -> None:
    adapter = Adapter((0,))
    adapter.driver.is_over = is_over
    verdict = adapter.scheduler.on_trial_result(None, tune_trial("a"), {"batches": ["some"]})
    assert verdict == (adapter.scheduler.STOP if is_over else adapter.scheduler.CONTINUE)
    assert adapter.driver.calls == [("record", ["some"])]


def test_driver_is_called_regularly() -> None:
    adapter = Adapter((0,))
    adapter.callback.on_step_begin(0, [])
    assert adapter.driver.calls == [("tick",)]


def test_tune_copies_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray logs what Tune copies into the settings of its trials."""
    names = set(class_cache.ENV_VARS_TO_PROPAGATE) | {"AWS_SECRET_ACCESS_KEY", "OTHER"}
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", names)
    ray_tune._hide_credentials()
    assert not [name for name in names if name.startswith("AWS_")]
    assert "OTHER" in names
