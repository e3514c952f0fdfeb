from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

from tests.tuner.schedulers.simulation import Draw, Search, drawn, facts
from tuner.schedulers.gaussian_process import Process, correlation, fit, log_likelihood
from tuner.schedulers.pb2 import PB2, encoded, standardised
from tuner.schedulers.population import Member
from tuner.space.parameter import Choice, Parameter, Range

NOBODY = frozenset[int]()


def observations(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, t = rng.random((n, d)), rng.integers(1, 6, n).astype(np.float64)
    y = np.sin(4 * x[:, 0]) + 0.1 * t + 0.1 * rng.normal(size=n)
    return x, t, (y - y.mean()) / y.std()


def direct_kernel(
    a: np.ndarray, s: float, b: np.ndarray, t: float, ell: float, eps: float
) -> float:
    """One entry, as the paper writes it."""
    return math.exp(-sum((a - b) ** 2) / (2 * ell**2)) * (1 - eps) ** (abs(s - t) / 2)


def test_process_agrees_with_the_direct_formula() -> None:
    x, t, y = observations(25, 3)
    asked, when = np.random.default_rng(1).random((7, 3)), np.full(7, 6.0)
    ell, eps, noise, variance = 0.7, 0.2, 0.1, 1.7
    process = Process(x, t, ell, eps, noise, variance)
    kernel = variance * np.array(
        [[direct_kernel(a, s, b, u, ell, eps) for b, u in zip(x, t, strict=True)]
         for a, s in zip(x, t, strict=True)]
    )  # fmt: skip
    inverse = np.linalg.inv(kernel + noise * variance * np.eye(25))
    for i in range(7):
        k = variance * np.array(
            [direct_kernel(asked[i], 6.0, b, u, ell, eps) for b, u in zip(x, t, strict=True)]
        )
        mean, deviation = process.mean(y, asked, when)[i], process.deviation(asked, when)[i]
        assert mean == pytest.approx(k @ inverse @ y, rel=1e-9)
        assert deviation == pytest.approx(math.sqrt(variance - k @ inverse @ k), rel=1e-9)
    # the likelihood is that of the variance that makes it highest
    likelihood, best = log_likelihood(correlation(x, t, x, t, ell, eps), noise, y)
    scaled = (kernel / variance + noise * np.eye(25)) * best
    _, determinant = np.linalg.slogdet(scaled)
    exact = -0.5 * (y @ np.linalg.inv(scaled) @ y + determinant)
    assert likelihood - 25 / 2 == pytest.approx(exact, rel=1e-9)


def test_process_agrees_with_scikit_learn() -> None:
    """(1 − ε)^(|t − t′|/2) is a Matérn kernel of order ½, of length −2/ln(1 − ε)."""
    x, t, y = observations(30, 2)
    asked, when = np.random.default_rng(1).random((9, 2)), np.full(9, 6.0)
    process = Process(x, t, 0.5, 0.3, 0.05, 1.3)
    far = 1e9  # leaves a dimension out
    kernel = (
        ConstantKernel(1.3)
        * RBF([0.5, 0.5, far])
        * Matern([far, far, -2 / math.log(1 - 0.3)], nu=0.5)
    )
    theirs = GaussianProcessRegressor(kernel, alpha=0.05 * 1.3, optimizer=None)
    theirs.fit(np.column_stack([x, t]), y)
    mean, deviation = theirs.predict(np.column_stack([asked, when]), return_std=True)
    np.testing.assert_allclose(process.mean(y, asked, when), mean, rtol=1e-6)
    np.testing.assert_allclose(process.deviation(asked, when), deviation, rtol=1e-6)


def test_fit_finds_what_the_values_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.random((120, 1)), np.repeat([1.0, 2.0, 3.0, 4.0], 30)
    for length, noise in ((0.1, 0.01), (0.8, 0.3)):
        covariance = correlation(x, t, x, t, length, 0.1) + noise * np.eye(120)
        y = np.linalg.cholesky(covariance) @ rng.normal(size=120)
        fitted = fit(x, t, y)
        assert length / 2.1 < fitted.length < length * 2.1
        assert noise / 3.5 < fitted.noise < noise * 3.5
        assert 0.2 < fitted.variance < 5


def test_fit_accepts_few_and_equal_values() -> None:
    x, t, _ = observations(8, 2)
    for n in (0, 1, 4, 8):
        process = fit(x[:n], t[:n], np.zeros(n))
        assert np.all(process.mean(np.zeros(n), x, t) == 0)
        assert np.all(np.isfinite(process.deviation(x, t)))


def test_draws_are_encoded() -> None:
    span = Parameter(name="weight_decay", distribution=Range(kind="log", low=1e-3, high=1.0))
    choice = Parameter(name="beta2", distribution=Choice(kind="choice", values=(0.9, 0.99, 0.999)))
    both = [span, choice]
    root = math.sqrt(0.5)
    one = {"weight_decay": 0.1, "beta2": 0.99}
    assert encoded(both, one) == pytest.approx([2 / 3, 0, root, 0])
    assert encoded(both, {}) == [0.5, 0, 0, 0]
    assert standardised(3.0, [1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(1.5))
    assert standardised(3.0, [2.0, 2.0]) == standardised(3.0, []) == 0


class Race:
    """Values that fall with each report, the fastest with the best λ; nothing else matters."""

    def __init__(self, best: float) -> None:
        self.best = best
        self.values: dict[int, float] = {}
        self.search: Search | None = None

    def __call__(self, number: int, draw: Draw, tokens: int) -> float:
        assert self.search is not None
        parent = self.search.board[number].parent
        before = self.values.get(number, 0.0 if parent is None else self.values.get(parent, 0.0))
        off = math.log(float(draw["weight_decay"]) / self.best) / math.log(1e3)
        self.values[number] = before - math.exp(-20 * off * off)
        return self.values[number]


@pytest.mark.slow
@pytest.mark.parametrize("best", [3e-3, 0.1])
def test_pb2_learns_where_the_gain_is(best: float) -> None:
    """The later copies miss the best λ by far less than blind draws would."""
    misses = []
    for seed in range(3):
        given = facts("pb2", reports=16, trials=8, seed=seed, never_stopped=NOBODY)
        race = Race(best)
        race.search = Search(given, PB2(given), 8, 8, race, seed, lockstep=True)
        copies = [t for t in race.search.run().board.values() if t.parent is not None]
        late = copies[len(copies) // 2 :]
        misses += [abs(math.log10(float(t.draw["weight_decay"]) / best)) for t in late]
    blind = np.mean(np.abs(np.linspace(-3, 0, 1000) - math.log10(best)))
    assert np.mean(misses) < 0.6 * blind  # 0.3 to 0.5 of it, over many seeds


def test_pb2_does_not_ask_the_same_twice() -> None:
    """What is under way lowers the deviation there: copies made at the same time differ."""
    given = facts("pb2", trials=4, never_stopped=NOBODY)
    tested, rng = PB2(given), random.Random(0)
    for number in range(4):
        tested.add(number, drawn(given.space, rng))
    for number in range(4):
        tested.judge(number, 200, float(number))
    first = tested.explore(tested.members[0], 0)
    assert tested.explore(tested.members[0], 0) == first
    tested.members[9] = Member(9, first, 2, 200, 1, 0.0)
    bound = tested._bound(tested.members[0])
    del tested.members[9]
    assert bound([first])[0] < tested._bound(tested.members[0])([first])[0]
