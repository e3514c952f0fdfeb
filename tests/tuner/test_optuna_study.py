"""What a sampler sees of a search that has more trials than it looks at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.test_sampling import events, finished, loss, make, play, run
from tuner.optuna_study import METHODS
from tuner.sampling import Sampler

BEST = 25


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "tpe", replace(METHODS["tpe"], most=30))


def hidden_of(sampler: Sampler) -> frozenset[int]:
    return sampler._study._table.hidden


@pytest.mark.usefixtures("few")
def test_tpe_looks_at_the_best_trials_and_at_the_newest(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    draws = run(sampler, 30)
    draws.append(sampler.suggest(30))
    assert not hidden_of(sampler)
    sampler.tell(30, finished(draws[30]))
    for number in range(31, 45):
        draws.append(sampler.suggest(number))
        sampler.tell(number, finished(draws[number]))
    sampler.suggest(45)
    seen = set(range(45)) - hidden_of(sampler)
    assert len(seen) == 30
    ranked = sorted(range(45), key=lambda number: loss(draws[number]))
    assert seen >= set(ranked[:BEST])
    assert seen - set(ranked[:BEST]) == set(sorted(ranked[BEST:])[-5:])


@pytest.mark.usefixtures("few")
def test_tpe_that_looks_at_few_goes_on_as_if_undisturbed(tmp_path: Path) -> None:
    script = events(60)
    whole = play(make(tmp_path), script)
    for known in (35, 50):
        recorded = {number: whole[number] for number in range(known)}
        assert play(make(tmp_path), script, recorded) == whole


def test_tpe_sees_all_of_a_usual_search(tmp_path: Path) -> None:
    sampler = make(tmp_path)
    run(sampler, 40)
    sampler.suggest(40)
    assert not hidden_of(sampler)
    assert METHODS["tpe"].most == 1000
