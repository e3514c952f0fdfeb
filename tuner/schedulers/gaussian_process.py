"""A Gaussian process over settings and time, with a kernel that forgets.

k((x, t), (x′, t′)) = σ²·exp(−‖x − x′‖²/(2ℓ²))·(1 − ε)^(|t − t′|/2), and noise λ·σ² at each
observation. Source: Bogunovic et al. 2016, "Time-varying Gaussian process bandit optimization"
(arXiv:1601.06650), as used in PB2.

n = observations, m = points to predict, d = dimensions of a setting. All in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Grid of the fit; ℓ in units of √d, the diagonal of a unit cube.
_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_FORGETTING = (0.0, 0.1, 0.25, 0.5)
_NOISES = (0.01, 0.05, 0.2, 1.0)
# ℓ, ε, λ and σ² with fewer observations than a fit needs.
_UNFITTED = (0.4, 0.1, 0.1, 1.0)
_FEWEST = 5


@dataclass(frozen=True)
class Process:
    """A Gaussian process with mean 0, and the points at which it has been observed.

    Attributes:
        settings: observed settings, (n, d).
        times: times of the observations, (n,).
        length: ℓ.
        forgetting: ε, in [0, 1).
        noise: λ, variance of the noise in units of σ².
        variance: σ².
    """

    settings: Floats
    times: Floats
    length: float
    forgetting: float
    noise: float
    variance: float

    def mean(self, values: Floats, settings: Floats, times: Floats) -> Floats:
        """Return the expected values at some points.

        Args:
            values: observed values, (n,).
            settings: settings of the points, (m, d).
            times: times of the points, (m,).

        Returns:
            Expected values, (m,).
        """
        observed, across = self._correlations(settings, times)
        mean: Floats = across.T @ np.linalg.solve(observed, values)
        return mean

    def deviation(self, settings: Floats, times: Floats) -> Floats:
        """Return the standard deviations at some points, (m,), without the noise.

        They depend on no observed values. Arguments as for `mean`.
        """
        observed, across = self._correlations(settings, times)
        half = np.linalg.solve(np.linalg.cholesky(observed), across)  # (n, m)
        deviation: Floats = np.sqrt(
            self.variance * np.maximum(1.0 - np.sum(half * half, axis=0), 0.0)
        )
        return deviation

    def _correlations(self, settings: Floats, times: Floats) -> tuple[Floats, Floats]:
        """Return correlations of the noisy observations, (n, n), and with some points, (n, m)."""
        x, t, shape = self.settings, self.times, (self.length, self.forgetting)
        observed = correlation(x, t, x, t, *shape) + self.noise * np.eye(len(x))
        return observed, correlation(x, t, settings, times, *shape)


def correlation(
    x: Floats, t: Floats, x2: Floats, t2: Floats, length: float, forgetting: float
) -> Floats:
    """Return the kernel in units of σ²: (n, d), (n,), (m, d), (m,) → (n, m)."""
    squares = np.sum((x[:, None, :] - x2[None, :, :]) ** 2, axis=2)
    apart = np.abs(t[:, None] - t2[None, :])
    near: Floats = np.exp(-squares / (2 * length**2)) * (1.0 - forgetting) ** (apart / 2)
    return near


def fit(settings: Floats, times: Floats, values: Floats) -> Process:
    """Return the process with the largest likelihood on a grid of ℓ, ε and λ.

    σ² has its largest likelihood for each point of the grid. A grid, unlike a gradient method, does
    not depend on a starting point.

    Args:
        settings: observed settings, (n, d), each dimension about in [0, 1].
        times: times of the observations, (n,).
        values: observed values, (n,), with mean 0 and variance 1, or all 0.
    """
    diagonal = math.sqrt(max(1, settings.shape[1]))
    if len(values) < _FEWEST or not np.any(values):
        length, *others = _UNFITTED
        return Process(settings, times, length * diagonal, *others)
    best, chosen = -math.inf, _UNFITTED
    for length, forgetting in product(_LENGTHS, _FORGETTING):
        shape = (length * diagonal, forgetting)
        correlations = correlation(settings, times, settings, times, *shape)
        for noise in _NOISES:
            likelihood, variance = log_likelihood(correlations, noise, values)
            if likelihood > best:
                best, chosen = likelihood, (*shape, noise, variance)
    return Process(settings, times, *chosen)


def log_likelihood(correlations: Floats, noise: float, values: Floats) -> tuple[float, float]:
    """Return the largest log-likelihood over all σ², up to a constant, and its σ².

    Args:
        correlations: correlations of the observations without noise, (n, n).
        noise: λ.
        values: observed values, (n,).
    """
    factor = np.linalg.cholesky(correlations + noise * np.eye(len(values)))
    half = np.linalg.solve(factor, values)
    variance = float(half @ half) / len(values)
    determinant = 2.0 * float(np.sum(np.log(np.diag(factor))))
    return -0.5 * (len(values) * math.log(variance) + determinant), variance
