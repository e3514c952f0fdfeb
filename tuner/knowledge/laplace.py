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
_ROUNDS, _DONE, _MOST_DAMPING = 100, 1e-9, 1e9


@dataclass(frozen=True)
class NormalPrior:
    """Normal distribution of P parameters.

    Attributes:
        mean: (P,).
        precision: inverse of the covariance, (P, P).
    """

    mean: Floats
    precision: Floats


@dataclass(frozen=True)
class Posterior:
    """Normal distribution around the mode.

    Attributes:
        mode: (P,).
        precision: inverse of the covariance, (P, P).
    """

    mode: Floats
    precision: Floats

    def draws(self, count: int, seed: int) -> Floats:
        """Return draws of the parameters, (count, P); the mode is the first."""
        factor = cholesky(self.precision)  # upper: precision = factorᵀ·factor
        normal = np.random.default_rng(seed).standard_normal((len(self.mode), count))
        normal[:, 0] = 0
        return np.asarray((self.mode[:, None] + solve_triangular(factor, normal)).T)


def fit(model: Model, observed: Floats, noise: Floats, prior: NormalPrior) -> Posterior:
    """Return the posterior of a model whose large errors count in proportion, not squared.

    The loss of a residual z, in units of its noise, is 2·(√(1 + z²) − 1): z² if it is small. Found
    by Levenberg–Marquardt from the prior mean.

    Args:
        model: values and derivatives at parameters.
        observed: (n,).
        noise: deviation of each observation, (n,).
        prior: of the parameters.
    """

    def cost(p: Floats) -> float:
        z, gap = (observed - model(p)[0]) / noise, p - prior.mean
        return float(2 * (np.sqrt(1 + z**2) - 1).sum() + gap @ prior.precision @ gap)

    p, damping = prior.mean.copy(), 1e-2
    least = cost(p)
    for _ in range(_ROUNDS):
        gradient, precision = _expanded(model, observed, noise, prior, p)
        while damping < _MOST_DAMPING:
            damped = precision + damping * np.diag(np.diag(precision))
            step = cho_solve(cho_factor(damped), gradient)
            now = cost(p + step)
            if now <= least:
                break
            damping *= 4
        else:
            break
        gain, least, p = least - now, now, p + step
        damping = max(damping / 6, 1e-8)
        if gain < _DONE * max(1.0, least):
            break
    return Posterior(p, _expanded(model, observed, noise, prior, p)[1])


def _expanded(
    model: Model, observed: Floats, noise: Floats, prior: NormalPrior, p: Floats
) -> tuple[Floats, Floats]:
    """Return the negative gradient of half the cost, and its curvature by Gauss and Newton."""
    values, jacobian = model(p)
    z = (observed - values) / noise
    weight = 1 / np.sqrt(1 + z**2)
    scaled = jacobian / noise[:, None]
    gradient = scaled.T @ (weight * z) - prior.precision @ (p - prior.mean)
    return gradient, (scaled * weight[:, None]).T @ scaled + prior.precision
