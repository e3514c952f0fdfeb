"""The loss at the best settings: planted Chinchilla laws."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tuner.knowledge.planted import lowest
from tuner.knowledge.levels import Levels, _losses
from tuner.results.bowls import QUANTILES

CELLS = [(n, d, t) for t in ("code", "prose") for n in (1e4, 1e5, 1e6) for d in (1e5, 3e5, 1e6)]
SIZES = np.log([[n, d] for n, d, _ in CELLS])
TEXTS = [text for _, _, text in CELLS]


def test_derivatives_are_those_of_differences() -> None:
    rng = np.random.default_rng(0)
    p, sizes, texts = 0.3 * rng.standard_normal(12), rng.standard_normal((5, 2)), np.arange(5) % 2
    values, jacobian = _losses(p, sizes, texts)
    for number in range(len(p)):
        moved = p.copy()
        moved[number] += 1e-6
        differences = (_losses(moved, sizes, texts)[0] - values) / 1e-6
        np.testing.assert_allclose(jacobian[:, number], differences, atol=1e-5)


def levels(target: str, seed: int = 0, noise: float = 0.002) -> Levels:
    rng = np.random.default_rng(seed)
    losses = np.log([lowest(*cell) for cell in CELLS]) + noise * rng.standard_normal(len(CELLS))
    return Levels(losses, np.full(len(CELLS), noise), SIZES, TEXTS, target)


@pytest.mark.parametrize("text", ["code", "prose"])
def test_loss_an_order_of_compute_ahead_is_predicted(text: str) -> None:
    size, truth = np.log([3e6, 3.3e6]), np.log(lowest(3e6, 3.3e6, text))
    errors, held = [], []
    for seed in range(8):
        draws = levels(text, seed).draws(size, 400, seed)
        errors.append(abs(draws[0] - truth))
        low, high = np.quantile(draws, QUANTILES)
        held.append(low <= truth <= high)
    assert np.mean(errors) < 0.01
    assert sum(held) >= 7


def test_unknown_text_has_a_wide_interval() -> None:
    size = np.log([1e5, 3e5])
    known, unknown = (levels(t).draws(size, 400, 0).std() for t in ("code", "another"))
    assert unknown > 10 * known
