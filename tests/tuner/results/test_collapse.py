"""Loss collapse: on the committed table, and on curves that coincide by construction."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.tuner.results.bench_table import table_trials
from tuner.conductor.trial import Trial
from tuner.results.collapse import Collapse, collapses

RATE = "max_learning_rate"
METRIC = "val_loss"


@pytest.fixture(scope="module")
def table() -> list[Trial]:
    return table_trials()


def one(trials: Sequence[Trial]) -> Collapse:
    (found,) = collapses(trials, METRIC)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, 64])
def test_bands_of_real_trials_hold_the_good_and_not_the_wrong_rates(
    table: list[Trial], count: int
) -> None:
    """At most 5 of 100 good trials leave a band that was made without them before 40 %.

    Of those whose rate is a fourth of the band's or less, at least 90 of 100 leave it.
    """
    rng = random.Random(0)
    false = good = flagged = wrong = 0
    for _ in range(30):
        drawn = set(rng.sample(range(len(table)), count))
        chosen = [t for t in table if t.number in drawn]
        if not (found := collapses(chosen, METRIC)):
            continue
        reference = [t for t, c in zip(chosen, found[0].curves, strict=True) if c.is_good]
        rate = math.exp(sum(math.log(t.draw[RATE]) for t in reference) / len(reference))
        best = min(t.objective(METRIC) for t in reference)
        others = [t for t in table if t.number not in drawn]
        # judged as if they still trained: three of nine reports
        young = [replace(t, reports=t.reports[:3]) for t in others]
        left = {curve.number for curve in one([*chosen, *young]).left}
        for other in others:
            if other.objective(METRIC) <= 1.05 * best:
                good += 1
                false += other.number in left
            elif other.draw[RATE] <= rate / 4:
                wrong += 1
                flagged += other.number in left
    assert good >= 100
    assert wrong >= 100
    assert false <= 0.05 * good
    assert flagged >= 0.9 * wrong


def scaled(trials: Sequence[Trial], factor: float, width: int, first: int) -> list[Trial]:
    """The same curves for a model of another size, whose losses are larger by a factor."""
    copies = []
    for number, trial in enumerate(trials, first):
        architecture = trial.spec.architecture.model_copy(update={"d_model": width})
        spec = trial.spec.model_copy(update={"architecture": architecture})
        reports = [replace(r, val_loss=factor * r.val_loss) for r in trial.reports]
        copies.append(Trial(number, spec, trial.draw, reports=reports))
    return copies


def test_sizes_whose_curves_are_proportional_lie_in_one_band(table: list[Trial]) -> None:
    good = sorted(table, key=lambda t: t.objective(METRIC))[:6]
    small = scaled(good, 1.3, 32, 300)
    found = one([*good, *small])
    assert len(found.sizes) == 2
    by_number = {curve.number: curve for curve in found.curves}
    for trial, copy in zip(good, small, strict=True):
        assert by_number[copy.number].values == pytest.approx(by_number[trial.number].values)
    assert min(curve.values[-1] for curve in found.curves) == 1.0
    assert found.left == []
    slow = max(table, key=lambda t: t.objective(METRIC))
    (planted,) = scaled([slow], 1.3, 32, 400)
    found = one([*good, *small, planted])
    assert [(curve.number, curve.left) for curve in found.left] == [(400, 1)]


def test_other_schedules_and_few_good_trials_make_no_band(table: list[Trial]) -> None:
    good = sorted(table, key=lambda t: t.objective(METRIC))[:4]
    assert collapses(good[:2], METRIC) == []
    h = good[0].spec.hyperparameters.model_copy(update={"schedule": "wsd"})
    spec = good[0].spec.model_copy(update={"hyperparameters": h})
    other = Trial(9, spec, good[0].draw, reports=good[0].reports)
    assert [c.number for c in one([*good[1:], other]).curves] == sorted(t.number for t in good[1:])
