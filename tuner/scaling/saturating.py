"""Losses that fall to a constant: E + A·x^−a, or E + A·x^−a + B·y^−b, by least squares.

For given exponents the rest is linear, so only exponents are searched, on a grid that is refined
(variable projection). E, A and B are not negative. Source of the form: Hoffmann et al. 2022,
section 3.3 (arXiv:2203.15556).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from tuner.results.bowls import Floats

_EXPONENTS = np.geomspace(0.02, 2.5, 32)
_NEAR, _ROUNDS = 7, 9  # points of a refined grid in each dimension, each a third of the last
_TINY = 1e-12


@dataclass(frozen=True)
class Saturating:
    """R laws with k variables.

    Attributes:
        constant: E, (R,).
        factors: A (and B) at the middle of the sizes, (R, k).
        exponents: a (and b), (R, k).
        middle: geometric means of the variables, (k,).
    """

    constant: Floats
    factors: Floats
    exponents: Floats
    middle: Floats

    def value(self, x: Floats) -> Floats:
        """Return the losses at one point (k,): (R,)."""
        powers = (x / self.middle) ** -self.exponents
        return np.asarray(self.constant + (self.factors * powers).sum(axis=1))


def fit_saturating(x: Floats, losses: Floats) -> Saturating:
    """Fit R laws to the losses of G sizes; the relative errors are minimized.

    Args:
        x: variables, (G, k), above 0.
        losses: (R, G), above 0; the first row weighs the errors of all.
    """
    k = x.shape[1]
    middle = np.exp(np.log(x).mean(axis=0))
    z, weights = np.log(x / middle), 1 / losses[0]
    y = losses * weights
    grid = np.stack([g.ravel() for g in np.meshgrid(*[_EXPONENTS] * k, indexing="ij")], axis=1)
    masks = [np.array(m) for m in product((True, False), repeat=k + 1) if any(m)]
    best = np.full(len(y), np.inf)
    chosen = np.zeros(len(y), dtype=int)
    exponents = np.ones((len(y), k))
    for number, mask in enumerate(masks):
        design = _design(z, grid, weights)[:, :, mask]  # (P, G, m)
        right = np.einsum("pgm,rg->pmr", design, y)
        found = np.linalg.solve(_gram(design), right)
        errors = (y**2).sum(axis=1) - (found * right).sum(axis=1)  # (P, R)
        errors[(found < 0).any(axis=1)] = np.inf
        at = errors.argmin(axis=0)
        smallest = errors[at, np.arange(len(y))]
        is_better = smallest < best - _TINY
        best[is_better], chosen[is_better] = smallest[is_better], number
        exponents[is_better] = grid[at[is_better]]
    coefficients = np.zeros((len(y), k + 1))
    for number, mask in enumerate(masks):
        rows = np.flatnonzero(chosen == number)
        if len(rows):
            found, exponents[rows] = _refined(z, y[rows], weights, exponents[rows], mask)
            coefficients[np.ix_(rows, np.flatnonzero(mask))] = found
    return Saturating(coefficients[:, 0], coefficients[:, 1:], exponents, middle)


def _design(z: Floats, exponents: Floats, weights: Floats) -> Floats:
    """Return 1, x^−a (, y^−b), weighted: (..., G, k + 1) of exponents (..., k)."""
    powers = np.exp(-exponents[..., None, :] * z)
    ones = np.ones((*powers.shape[:-1], 1))
    return np.concatenate([ones, powers], axis=-1) * weights[:, None]


def _gram(design: Floats) -> Floats:
    gram = np.swapaxes(design, -1, -2) @ design
    return np.asarray(gram + _TINY * np.eye(gram.shape[-1]))


def _refined(
    z: Floats, y: Floats, weights: Floats, start: Floats, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return coefficients (R, m) and exponents (R, k) near the best points of the grid."""
    k = z.shape[1]
    step = float(np.log(_EXPONENTS[1] / _EXPONENTS[0]))
    offsets = np.array(list(product(np.linspace(-1, 1, _NEAR), repeat=k)))  # (Q, k)
    at, rows = start, np.arange(len(y))
    for _ in range(_ROUNDS):
        tried = at[:, None, :] * np.exp(step * offsets)  # (R, Q, k)
        tried = np.clip(tried, _EXPONENTS[0], _EXPONENTS[-1])
        design = _design(z, tried, weights)[..., mask]
        right = np.einsum("rqgm,rg->rqm", design, y)
        found = np.linalg.solve(_gram(design), right[..., None])[..., 0]
        errors = ((np.einsum("rqgm,rqm->rqg", design, found) - y[:, None]) ** 2).sum(axis=2)
        errors[(found < 0).any(axis=2)] = np.inf
        place = errors.argmin(axis=1)
        at, coefficients = tried[rows, place], np.maximum(found[rows, place], 0)
        step /= 3
    return coefficients, at
