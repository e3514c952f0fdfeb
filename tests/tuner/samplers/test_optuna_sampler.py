"""What a sampler sees of a search that has more trials than it looks at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.tuner.samplers.test_sampler import events, finished, loss, make, play, run
from tuner.samplers.registry import SAMPLERS
from tuner.samplers.sampler import Sampler

BEST = 25


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "tpe", replace(SAMPLERS["tpe"], max_trials=30))  # type: ignore[arg-type]


def seen_by(sampler: Sampler) -> set[int]:
    """The ended trials that were seen for the last suggestion."""
    table = sampler._study._table
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return {trial.number for trial in table.get_all_trials(0, states=ended)}


@pytest.mark.usefixtures("few")
def test_tpe_looks_at_the_best_trials_and_at_the_newest(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    draws = run(sampler, 30)
    draws.append(sampler.suggest(30))
    assert seen_by(sampler) == set(range(30))
    sampler.observe(30, finished(draws[30]))
    for number in range(31, 45):
        draws.append(sampler.suggest(number))
        sampler.observe(number, finished(draws[number]))
    sampler.suggest(45)
    seen = seen_by(sampler)
    assert len(seen) == 30
    ranked = sorted(range(45), key=lambda number: loss(draws[number]))
    assert seen >= set(ranked[:BEST])
    assert seen - set(ranked[:BEST]) == set(sorted(ranked[BEST:])[-5:])


@pytest.mark.usefixtures("few")
def test_tpe_with_limited_history_resumes_identically(tmp_path: Path) -> None:
    script = events(60)
    whole = play(make(tmp_path), script)
    for known in (35, 50):
        recorded = {number: whole[number] for number in range(known)}
        assert play(make(tmp_path), script, recorded) == whole


def test_tpe_sees_all_of_a_usual_search(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    run(sampler, 40)
    sampler.suggest(40)
    assert seen_by(sampler) == set(range(40))
    assert SAMPLERS["tpe"].max_trials == 1000
