"""The basin model: derivatives, published laws without evidence, planted bowls with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.tuner.knowledge.planted import SMALL, best, planted
from tuner.knowledge.basin import BasinModel, TargetCell
from tuner.knowledge.evidence import Evidence, evidence_of
from tuner.knowledge.laws import LAWS
from tuner.knowledge.settings import NAMES
from tuner.results.bowls import QUANTILES

NOTHING = evidence_of([])


def test_derivatives_are_those_of_differences() -> None:
    basin = BasinModel(planted(SMALL[:2], count=12), TargetCell(3e5, 3e5, "code"))
    rng = np.random.default_rng(0)
    p = basin.posterior.mean + 0.05 * rng.standard_normal(len(basin.posterior.mean))
    values, jacobian = basin._model(p)
    step = 1e-6
    for number in range(len(p)):
        moved = p.copy()
        moved[number] += step
        np.testing.assert_allclose(
            jacobian[:, number], (basin._model(moved)[0] - values) / step, atol=1e-4
        )


@pytest.mark.parametrize(("weights", "tokens"), [(4.3e8, 8e9), (1.07e9, 2e10)])
def test_published_law_answers_without_evidence(weights: float, tokens: float) -> None:
    centres = BasinModel(NOTHING, TargetCell(weights, tokens)).bowls(400, 0).centres
    rate, batch = centres[0, 0], centres[0, 1]
    # Li et al. 2025, equation 1
    assert math.exp(rate) == pytest.approx(1.79 * weights**-0.713 * tokens**0.307, rel=0.02)
    assert math.exp(batch) == pytest.approx(0.58 * tokens**0.571, rel=0.02)
    spread = centres[:, 0].std()
    far = BasinModel(NOTHING, TargetCell(1e5, 1e6)).bowls(400, 0).centres[:, 0].std()
    assert spread < 0.5 * far  # the law is narrow where it was fitted


def test_law_of_the_decay_is_both_papers_together() -> None:
    law = next(law for law in LAWS if law.setting == "weight_decay")
    for n, d in [(1.11e8, 2.2e9), (1e9, 1e11)]:
        rate, batch = 1.79 * n**-0.713 * d**0.307, 0.58 * d**0.571
        timescale = 1.084 * (d / n) ** -0.527
        decay = batch / (rate * d * timescale)
        assert math.exp(law.log_value(math.log(n), math.log(d))) == pytest.approx(decay, rel=0.01)


def test_planted_centres_are_found_between_and_beyond_the_sizes() -> None:
    evidence = planted()
    for weights, tokens in [(3e4, 3e5), (1e7, 3e6)]:
        centres = BasinModel(evidence, TargetCell(weights, tokens, "code")).bowls(400, 0).centres
        truth = best(weights, tokens)
        low, high = np.quantile(centres, QUANTILES, axis=0)
        assert abs(centres[0, 0] - truth[0]) < 0.25, "the rate, against a wrong published law"
        assert ((low <= truth) & (truth <= high)).mean() >= 0.75


def test_intervals_hold_over_many_planted_texts() -> None:
    held = []
    for seed in range(12):
        evidence = planted(count=16, seed=seed)
        bowls = BasinModel(evidence, TargetCell(5e6, 3e6, "code")).bowls(200, seed)
        low, high = np.quantile(bowls.centres, QUANTILES, axis=0)
        truth = best(5e6, 3e6)
        held.append((low <= truth) & (truth <= high))
    assert np.mean(held) >= 0.85


def test_target_with_trials_of_its_own_follows_them() -> None:
    evidence = planted()
    moved = planted([(1e5, 1e6)], ["code"], count=60, seed=5)
    moved = Evidence(
        moved.points + 0.5 * np.eye(8)[0], moved.sizes, moved.cells, np.array(["own"] * 60),
        moved.losses,
    )  # fmt: skip
    moved.cells[:] = "own cell"
    both = Evidence.joined([evidence, moved])
    without = BasinModel(evidence, TargetCell(1e5, 1e6, "own")).bowls(1, 0).centres[0, 0]
    with_own = BasinModel(both, TargetCell(1e5, 1e6, "own")).bowls(1, 0).centres[0, 0]
    assert 0.15 < with_own - without < 0.6


def test_regret_is_zero_at_the_centre_and_grows() -> None:
    bowls = BasinModel(planted(), TargetCell(1e5, 1e6)).bowls(5, 0)
    centre = bowls.centres[0]
    away = np.stack([centre + k * np.eye(len(NAMES))[0] for k in range(4)])
    regrets = bowls.regrets(away)[0]
    assert regrets[0] == pytest.approx(0, abs=1e-12)
    assert (np.diff(regrets) > 0).all()


def test_diverged_cells_are_no_evidence() -> None:
    evidence = planted(SMALL[:1], ["code"], count=8)
    evidence.losses[:] = np.inf
    assert BasinModel(evidence, TargetCell(1e5, 1e6)).cells == []
