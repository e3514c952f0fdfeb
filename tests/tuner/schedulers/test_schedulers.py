"""What every scheduler keeps to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.schedulers.simulation import Search, facts, noise
from tuner.schedulers.registry import SCHEDULERS
from tuner.schedulers.scheduler import SchedulerContext
from tuner.space.settings import SchedulerName

PAGE = (Path(__file__).parents[3] / "docs" / "schedulers.md").read_text(encoding="utf-8")
CASES = [(name, form) for name in SCHEDULERS for form in ("promote", "stop")]
CASES = [case for case in CASES if case[0] == "asha" or case[1] == "promote"]
pytestmark = pytest.mark.usefixtures("few_draws")
each_case = pytest.mark.parametrize(("name", "form"), CASES)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_is_described(name: SchedulerName) -> None:
    assert SCHEDULERS[name].says(facts(name).space)
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `scheduler`"))
    assert f"`{name}`" in row
    headings = [line for line in PAGE.splitlines() if line.startswith("### ")]
    assert any(name in heading.removeprefix("### ").split(", ") for heading in headings)


def case_facts(name: str, form: str, trials: int = 24, **more: object) -> SchedulerContext:
    return facts(name, asha=form, trials=trials, **more)  # type: ignore[arg-type]


def search(
    given: SchedulerContext, slots: int, *, seed: int = 0, failing: float = 0.0, levels: int = 10**9
) -> Search:
    scheduler = SCHEDULERS[given.space.search.scheduler].make(given)
    trials = given.space.search.trials
    return Search(given, scheduler, slots, trials, noise(seed, levels), seed, failing)


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("slots", [1, 3, 8, 40])
@pytest.mark.parametrize("failing", [0.0, 0.05, 0.4])
def test_scheduler_ends_the_search_and_starts_every_trial(
    name: str, form: str, slots: int, failing: float
) -> None:
    for seed in range(1 if name == "pb2" else 4):
        given = case_facts(name, form, never_stopped=frozenset({0, 5}))
        done = search(given, slots, seed=seed, failing=failing, levels=(3, 10**9)[seed % 2]).run()
        assert done.started == 24
        assert not done.idle
        assert all(done.board[n].state in {"finished", "failed"} for n in (0, 5))
        if not failing:
            assert done.board[0].state == done.board[5].state == "finished"
            assert len(done.states("finished")) > 2 or name == "median"


@each_case
@pytest.mark.parametrize("trials", [2, 3, 4, 5, 7])
def test_scheduler_brings_a_drawn_trial_to_the_end(name: str, form: str, trials: int) -> None:
    """However few trials; and no scheduler that pauses leaves the best trial of a report paused."""
    for seed in range(4):
        for slots in (1, 3):
            given = case_facts(name, form, trials)
            done = search(given, slots, seed=seed).run()
            assert set(done.states("finished")) - {0}
            if "paused" not in {trial.state for trial in done.board.values()}:
                continue
            for tokens in {done.board[n].tokens for n in done.states("paused")}:
                reached = [n for n, trial in done.board.items() if n and trial.tokens >= tokens]
                best = min(reached, key=lambda n: done.worth(n, {}, tokens))
                assert done.board[best].tokens > tokens


@pytest.mark.slow
@each_case
def test_scheduler_repeats_its_answers(name: str, form: str) -> None:
    """Also without the calls of `choose` that returned nothing, which a journal does not keep."""
    for seed in range(1 if name == "pb2" else 6):
        given = case_facts(name, form)
        done = search(given, 3, seed=seed, failing=0.05, levels=20).run()
        again = SCHEDULERS[given.space.search.scheduler].make(given)
        for call, (args, kwargs), answer in done.calls:
            assert getattr(again, call)(*args, **kwargs) == answer


@pytest.mark.slow
@each_case
def test_scheduler_takes_more_trials_later(name: str, form: str) -> None:
    """A search that has ended is resumed with more trials: all of them are started."""
    for slots in (1, 4, 40):
        more = search(case_facts(name, form), slots, failing=0.05).run()
        for trials in (25, 40) if name == "pb2" else (25, 40, 64):
            more.trials = trials
            more.run()
            assert more.started == trials
            assert not more.idle


@each_case
def test_scheduler_saves_budget(name: str, form: str) -> None:
    given = case_facts(name, form)
    for seed in range(1 if name == "pb2" else 4):
        done = search(given, 4, seed=seed).run()
        full = sum(given.budget_tokens for trial in done.board.values() if trial.parent is None)
        expected_share = SCHEDULERS[given.space.search.scheduler].expected_share
        if expected_share(given.space, 24, given.report_tokens, given.budget_tokens) < 24:
            assert done.tokens < 0.8 * full
        else:  # a copy trains what is left of the one that it replaces
            assert done.tokens >= 0.8 * full


@each_case
def test_scheduler_accepts_end_of_paused_trial(name: str, form: str) -> None:
    """Its state may be lost; it must not be brought back."""
    for value in (None, 0.0):
        busy = search(case_facts(name, form), 2)
        busy.fill()
        for _ in range(400):
            if not busy.training:
                break
            busy.step()
            for number in busy.states("paused")[:1]:
                busy.board[number].state = "failed"
                busy.scheduler.end(number, busy.board[number].tokens, value)
            busy.fill()
        assert not busy.training
        assert busy.started == 24
