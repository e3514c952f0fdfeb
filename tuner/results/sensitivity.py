"""How much loss a learning rate costs that is not the best: the curvature of a basin.

Source: Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training
instabilities (arXiv:2309.14322), which compares optimizers and models by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.results.importance import Point
from tuner.space.parameter import Parameter
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.floating]

RATES = ("max_learning_rate", "learning_rate")
WINDOW = 3.0  # octaves on each side of the best rates; farther away, loss is no parabola
# The interval held the cost of all 257 trials of the committed table of bench/search_quality.py for
# 98 of 100 draws of 24, 48 or 96 of them; 30, 72 and 97 of 100 draws showed a basin at all.
_RESAMPLES, _QUANTILES = 400, (0.05, 0.95)
_FEWEST = 8  # trials in the window
_FEWEST_RATES = 5  # different rates in the window, also of a resample
_BEST_SHARE = 6  # one trial in six sets the middle of the window, three at least


@dataclass(frozen=True)
class Basin:
    """Loss around the best learning rate, a parabola in the logarithm of the rate.

    Attributes:
        parameter: the rate that was searched.
        rates: rate of each trial in the window, (n,).
        losses: loss of each of them, smaller is better, (n,).
        bottom: best rate.
        loss: loss of the parabola there.
        cost: loss that a factor of two from the bottom costs.
        low: 5 % quantile of the cost over resamples of the trials.
        high: 95 % quantile.
    """

    parameter: Parameter
    rates: Floats
    losses: Floats
    bottom: float
    loss: float
    cost: float
    low: float
    high: float

    def width(self, tolerance: float) -> float:
        """Return the factor by which the rate may be off for a loss that is as much higher."""
        return float(2 ** min(math.sqrt(tolerance / self.cost), WINDOW))

    def value(self, rate: float) -> float:
        """Return the loss of the parabola at a rate."""
        return self.loss + self.cost * math.log2(rate / self.bottom) ** 2


def basins(space: SearchSpace, points: Sequence[Point]) -> list[Basin]:
    """Return the basin of each searched learning rate, the lowest first.

    Those are left out whose trials are few, whose best rate lies outside of the rates of the
    trials, or whose curvature may be none (its interval has 0 in it).

    Args:
        space: the searched space.
        points: draw and loss of trials at one budget, smaller is better. Trials with an infinite
            one, which diverged, are left out: they lie on no parabola, and whatever loss they were
            given would bend it.
    """
    rates = [p for p in space.searched if p.name in RATES]
    finite = [(draw, loss) for draw, loss in points if math.isfinite(loss)]
    found = (_basin(p, [(d[p.label], y) for d, y in finite if p.label in d]) for p in rates)
    return sorted(filter(None, found), key=lambda basin: basin.loss)


def _basin(parameter: Parameter, pairs: Sequence[tuple[object, float]]) -> Basin | None:
    if len(pairs) < _FEWEST:
        return None
    x = np.log2(np.array([rate for rate, _ in pairs], dtype=float))
    y = np.array([loss for _, loss in pairs])
    (inside,) = _in_window(x[None], y[None])
    if inside.sum() < _FEWEST or len(np.unique(x[inside])) < _FEWEST_RATES:
        return None
    middle = float(x[inside].mean())
    ((constant, slope, cost),) = _parabolas(x[None] - middle, y[None], inside[None])
    drawn = np.random.default_rng(0).integers(len(x), size=(_RESAMPLES, len(x)))
    kept = _in_window(x[drawn], y[drawn])
    enough = [
        len(np.unique(x[row[is_kept]])) >= _FEWEST_RATES
        for row, is_kept in zip(drawn, kept, strict=True)
    ]
    if sum(enough) < _RESAMPLES // 2:
        return None
    costs = _parabolas(x[drawn][enough] - middle, y[drawn][enough], kept[enough])[:, 2]
    low, high = np.quantile(costs, _QUANTILES)
    if low <= 0 or cost <= 0:
        return None
    bottom = middle - slope / (2 * cost)
    if not x[inside].min() <= bottom <= x[inside].max():
        return None
    loss = constant - slope**2 / (4 * cost)
    return Basin(
        parameter, 2 ** x[inside], y[inside], float(2**bottom), float(loss), float(cost),
        float(low), float(high),
    )  # fmt: skip


def _in_window(x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Return which trials are near the rates of the best, (R, n) as both arguments."""
    best = np.argsort(y, axis=1, kind="stable")[:, : max(3, y.shape[1] // _BEST_SHARE)]
    middle = np.median(np.take_along_axis(x, best, axis=1), axis=1, keepdims=True)
    return np.asarray(np.abs(x - middle) <= WINDOW)


def _parabolas(x: Floats, y: Floats, weights: npt.NDArray[np.bool_]) -> Floats:
    """Return the coefficients of 1, x, x² by least squares, (R, 3); arguments are (R, n)."""
    powers = np.stack([np.ones_like(x), x, x * x], axis=2)
    left = np.einsum("rn,rni,rnj->rij", weights, powers, powers)
    right = np.einsum("rn,rni,rn->ri", weights, powers, y)
    return np.linalg.solve(left, right[..., None])[..., 0]
