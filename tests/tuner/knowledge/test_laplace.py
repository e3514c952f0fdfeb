"""The mode and the draws against scipy and the formulas of linear regression."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tuner.knowledge.laplace import Normal, fit

Floats = npt.NDArray[np.float64]
X = np.linspace(-1, 1, 40)
RNG = np.random.default_rng(3)


def curve(p: Floats) -> tuple[Floats, Floats]:
    grown = np.exp(p[1] * X)
    return p[0] * grown + p[2], np.column_stack([grown, p[0] * X * grown, np.ones_like(X)])


def test_mode_is_that_of_a_general_minimizer() -> None:
    observed = curve(np.array([1.5, 0.7, 0.2]))[0] + 0.05 * RNG.standard_normal(40)
    observed[5] += 3.0  # an outlier, which must count in proportion
    noise, prior = (
        np.full(40, 0.05),
        Normal(np.array([1.0, 0.0, 0.0]), np.diag([1.0, 4.0, 1.0])),
    )

    def cost(p: Floats) -> float:
        z, gap = (observed - curve(p)[0]) / noise, p - prior.mean
        return float(2 * (np.sqrt(1 + z**2) - 1).sum() + gap @ prior.precision @ gap)

    found = fit(curve, observed, noise, prior).mean
    expected = minimize(
        cost, prior.mean, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}
    )
    np.testing.assert_allclose(found, expected.x, atol=1e-4)


def test_draws_have_the_covariance_of_a_linear_regression() -> None:
    design = np.column_stack([np.ones(40), X])
    noise, precision = np.full(40, 0.5), np.diag([0.25, 0.25])
    posterior = fit(
        lambda p: (design @ p, design),
        design @ [1.0, 2.0],
        noise,
        Normal(np.zeros(2), precision),
    )
    exact = design.T @ design / 0.25 + precision
    # residuals of the mode are nearly 0, so that no weight differs from 1
    np.testing.assert_allclose(posterior.precision, exact, rtol=1e-3, atol=0.01)
    draws = posterior.draws(20_000, seed=0)
    np.testing.assert_array_equal(draws[0], posterior.mean)
    np.testing.assert_allclose(np.cov(draws.T), np.linalg.inv(exact), rtol=0.05, atol=1e-4)
