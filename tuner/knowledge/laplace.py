"""Least squares with normal priors: the mode of the posterior, and draws around it (Laplace)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

Floats = npt.NDArray[np.float64]

# parameters (P,) → values (n,) and their derivatives (n, P)
Model = Callable[[Floats], tuple[Floats, Floats]]
_ROUNDS, _DONE, _MOST_DAMPING = 100, 1e-7, 1e9


@dataclass(frozen=True)
class Normal:
    """Normal distribution of P parameters: a prior, or a posterior around its mode.

    Attributes:
        mean: (P,).
        precision: inverse of the covariance, (P, P).
    """

    mean: Floats
    precision: Floats

    def draws(self, count: int, seed: int) -> Floats:
        """Return draws of the parameters, (count, P); the mean is the first."""
        factor = cholesky(self.precision)  # upper: precision = factorᵀ·factor
        normal = np.random.default_rng(seed).standard_normal((len(self.mean), count))
        normal[:, 0] = 0
        return np.asarray((self.mean[:, None] + solve_triangular(factor, normal)).T)


def fit(
    model: Model, observed: Floats, noise: Floats, prior: Normal, start: Floats | None = None
) -> Normal:
    """Return the posterior of a model whose large errors count in proportion, not squared.

    The loss of a residual z, in units of its noise, is 2·(√(1 + z²) − 1): z² if it is small. Found
    by Levenberg–Marquardt.

    Args:
        model: values and derivatives at parameters.
        observed: (n,).
        noise: deviation of each observation, (n,).
        prior: of the parameters.
        start: parameters from which to search; by default the prior mean.
    """

    def at(p: Floats) -> tuple[float, Floats, Floats]:
        """Return the cost, the negative gradient of its half, and the curvature (Gauss, Newton)."""
        values, jacobian = model(p)
        z, gap = (observed - values) / noise, p - prior.mean
        root = np.sqrt(1 + z**2)
        scaled = jacobian / noise[:, None]
        gradient = scaled.T @ (z / root) - prior.precision @ gap
        precision = (scaled / root[:, None]).T @ scaled + prior.precision
        cost = float(2 * (root - 1).sum() + gap @ prior.precision @ gap)
        return cost, gradient, precision

    p, damping = (prior.mean if start is None else start).copy(), 1e-2
    cost, gradient, precision = at(p)
    for _ in range(_ROUNDS):
        while damping < _MOST_DAMPING:
            damped = precision + damping * np.diag(np.diag(precision))
            tried = p + cho_solve(cho_factor(damped), gradient)
            found = at(tried)
            if found[0] <= cost:
                break
            damping *= 4
        else:
            break
        gain, p = cost - found[0], tried
        cost, gradient, precision = found
        damping = max(damping / 6, 1e-8)
        if gain < _DONE * max(1.0, cost):
            break
    return Normal(p, precision)
