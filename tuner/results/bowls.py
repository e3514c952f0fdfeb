"""Lowest points of bowls that may be steep on one side: loss against the logarithm of a rate.

A loss often rises faster above the best learning rate than below it. The lowest point of a parabola
then lies too low, at all sizes alike, and more trials make it surer, not better. So the shape is
measured, too: shapes from steep below to very steep above are fitted to all bowls of a study at
once, each bowl with its own place, depth and width, and weighed by how well they fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr, ndtri  # importing scipy.stats takes a second more

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANTILES = (0.05, 0.95)  # ends of all intervals
_WINDOW = 3.0  # octaves around the best trial; farther away, loss has no shape that is known
_STEEP = 1.1  # times the lowest loss; higher ones nearly diverged, and lie above any bowl
BEYOND = 1.0  # octaves by which a lowest point may lie outside of the trials
# Shapes u²·e(k·u)·(1 + δ·tanh(u / width)), e growing from 1 at 0. First those with k = 0: how many
# times as much an octave above the lowest point costs as one below, and in how many octaves one
# side passes into the other. Then those with δ = 0, whose steepness grows with the distance.
_RATIOS, _WIDTHS = (0.7, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0), (0.1, 0.7, 2.0)
_MOST = 0.97  # of δ; at 1 one side would be flat
_GROWTHS = (-0.3, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8)
# Real bowls have none of these shapes: what all bowls of a study have in common, in octaves.
_EXPECTED = (0.4, 0.9)  # log2 of what an octave above costs over one below: mean and deviation
_UNKNOWN = 0.04
_TILTS = (-2.0, 2.0)  # octaves of x for one of the tilt
_POINTS = (41, 21)  # of a grid of places, and of tilts
_NOISES = np.geomspace(0.25, 10, 32)  # times the noise that the best shape leaves
_ROUNDS = 30  # of narrowing the grids; with noise, three or four do
_TINY = 1e-300


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Estimate:
        """Return a value with the quantiles of draws of it."""
        low, high = np.quantile(draws, QUANTILES)
        return cls(value, min(value, float(low)), max(value, float(high)))

    def text(self, form: str = "+.2f") -> str:
        """Return `+0.12 (-0.30 … +0.51)`."""
        return f"{self.value:{form}} ({self.low:{form}} … {self.high:{form}})"


@dataclass(frozen=True)
class Bowl:
    """Losses of one bowl.

    Attributes:
        x: log2 of the rate, (n,).
        y: losses, (n,).
        others: terms beside the bowl, (n, q): a level for each seed, or a parabola in B.
        tilt: a quantity that moves the lowest point in proportion, (n,), or None.
    """

    x: Floats
    y: Floats
    others: Floats
    tilt: Floats | None = None

    @property
    def places(self) -> Floats:
        """What the lowest point is linear in, (n, k): 1, and the tilt from its mean."""
        tilts = [] if self.tilt is None else [self.tilt - self.tilt.mean()]
        return np.stack([np.ones_like(self.x), *tilts], axis=1)


@dataclass(frozen=True)
class BowlFits:
    """Fits of G bowls with one shape and one noise: first the means, then R draws.

    Attributes:
        places: lowest point at the mean tilt, and its move with the tilt, of each bowl (1 + R, k).
        costs: loss of an octave off the lowest point, the mean of both sides, (1 + R, G).
        others: coefficients of the other terms, of each bowl (1 + R, q).
        shapes: numbers of the shapes, (1 + R,); the first is the most frequent one.
        noise: standard deviation of a loss, (1 + R,).
    """

    places: Sequence[Floats]
    costs: Floats
    others: Sequence[Floats]
    shapes: Ints
    noise: Floats


def near(x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Return which losses are near enough to the lowest for a shape that is known.

    Args:
        x: octaves, (n, k).
        y: losses, (n,).
    """
    is_near = (np.abs(x - x[y.argmin()]) <= _WINDOW + 1e-9).all(axis=1)
    return np.asarray(is_near & (y <= _STEEP * y.min()))


def bottom(slope: Floats, curve: Floats, low: float, high: float) -> Floats:
    """Return where slope·v + curve·v² is lowest between two ends."""
    has_bottom = curve > 0
    lowest = -slope / (2 * np.where(has_bottom, curve, 1))
    return np.clip(np.where(has_bottom, lowest, np.where(slope > 0, low, high)), low, high)


def height(u: Floats, shapes: Ints) -> Floats:
    """Return how high a bowl is at u octaves above its lowest point, 1 on average at ±1."""
    delta, width, growth = np.moveaxis(_SHAPES[shapes], -1, 0)
    ku = growth * u
    is_small = np.abs(ku) < 1e-3
    large = np.where(is_small, 1.0, ku)
    grown = np.where(is_small, 1 + ku / 3, 2 * (np.expm1(large) - large) / large**2)
    return np.asarray(u**2 * grown * (1 + delta * np.tanh(u / width)))


def fit_bowls(bowls: Sequence[Bowl], draws: int, seed: int = 0) -> BowlFits:
    """Fit bowls that have one shape and one noise.

    The posterior is summed over a grid of shapes, noises and places, which is narrowed to where its
    mass lies. Of a shape it is flat in the coefficients that a parabola would have, and in the
    logarithm of the noise, which gives parabolas the intervals of least squares and Student's t. A
    shape has the weight of its best fit alone: all have the same number of coefficients.

    Args:
        bowls: losses of each bowl.
        draws: number R of draws.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    boxes = [
        np.array([(b.x.min() - BEYOND, b.x.max() + BEYOND), _TILTS])[: b.places.shape[1]]
        for b in bowls
    ]
    for _ in range(_ROUNDS):
        grids = [_Grid(bowl, box) for bowl, box in zip(bowls, boxes, strict=True)]
        noises, levels, shapes = _noise_and_shapes(grids, draws, rng)
        places = [grid.draw(noises, levels, shapes, rng) for grid in grids]
        narrow = [grid.around(drawn) for grid, drawn in zip(grids, places, strict=True)]
        shares = [np.ptp(n, axis=1) / np.ptp(b, axis=1) for n, b in zip(narrow, boxes, strict=True)]
        boxes = narrow
        if min(share.min() for share in shares) > 0.8:
            break
    noise = noises[levels]
    pairs = [
        _coefficients(bowl, at, noise, shapes, rng) for bowl, at in zip(bowls, places, strict=True)
    ]
    common = rng.normal(0, _UNKNOWN, draws)
    common -= common.mean()
    for at in places:
        at[:, 0] += common
    most = np.bincount(shapes).argmax()
    return BowlFits(
        [_after_mean(at) for at in places],
        _after_mean(np.stack([cost for cost, _ in pairs], axis=1)),
        [_after_mean(others) for _, others in pairs],
        np.concatenate([[most], shapes]),
        np.concatenate([[(noise**-2.0).mean() ** -0.5], noise]),
    )


def _shapes() -> Floats:
    """Return δ, width and growth of each shape, the parabola first."""
    found = [(0.0, 1.0, 0.0), *((0.0, 1.0, growth) for growth in _GROWTHS)]
    for width in _WIDTHS:
        deltas = [(r - 1) / (r + 1) / np.tanh(1 / width) for r in _RATIOS]
        found += [(delta, width, 0.0) for delta in deltas if delta <= _MOST]
    return np.array(found)


_SHAPES = _shapes()
_SKEWS = np.log2(np.divide(*(height(np.array(u), np.arange(len(_SHAPES))) for u in (1.0, -1.0))))
_PRIOR = -(((_SKEWS - _EXPECTED[0]) / _EXPECTED[1]) ** 2) / 2


class _Grid:
    """Least squares of one bowl, for each shape and each point of a grid of places: (S, P)."""

    def __init__(self, bowl: Bowl, box: Floats) -> None:
        axes = [np.linspace(low, high, n) for (low, high), n in zip(box, _POINTS, strict=False)]
        self.points = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
        self.box, self.cell = box, np.array([axis[1] - axis[0] for axis in axes])
        self.freedom = len(bowl.y) - bowl.others.shape[1] - 1 - len(axes)
        self.scale = float(np.abs(bowl.y).max())
        across = _across(bowl.others)
        u = bowl.x - self.points @ bowl.places.T
        f = height(u[None], np.arange(len(_SHAPES))[:, None, None]) @ across
        y = across @ bowl.y
        self.square = np.maximum((f**2).sum(axis=2), _TINY)
        self.cost = f @ y / self.square
        self.rest = ((y - self.cost[..., None] * f) ** 2).sum(axis=2)
        self.least = np.where(self.cost > 0, self.rest, (y**2).sum()).min(axis=1)  # (S,)

    def draw(self, noises: Floats, levels: Ints, shapes: Ints, rng: np.random.Generator) -> Floats:
        """Return places for a level of noise and a shape each, (R, k)."""
        pairs, inverse = np.unique(levels * len(_SHAPES) + shapes, return_inverse=True)
        logs = self._logs(noises[pairs // len(_SHAPES)], pairs % len(_SHAPES))
        sums = np.exp(logs - logs.max(axis=1, keepdims=True)).cumsum(axis=1)[inverse]
        count = len(levels)
        picked = (sums < rng.random((count, 1)) * sums[:, -1:]).sum(axis=1)
        own = self.points[picked] + rng.uniform(-0.5, 0.5, (count, len(self.cell))) * self.cell
        return np.asarray(np.clip(own, self.box[:, 0], self.box[:, 1]))

    def _logs(self, noise: Floats, shapes: Ints) -> Floats:
        """Return log weights of all points, costs above 0 integrated."""
        sigma, cost = noise[:, None], self.cost[shapes]
        deviation = sigma / np.sqrt(self.square[shapes])
        t = np.clip(cost / deviation, -30, None)
        mass = t * ndtr(t) + np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
        own = np.log(np.maximum(mass, _TINY)) + 2 * np.log(deviation)
        return np.asarray(own - self.rest[shapes] / (2 * sigma**2))

    def around(self, places: Floats) -> Floats:
        """Return the part of the box in which places lie, with a margin."""
        low, high = places.min(axis=0) - 1.5 * self.cell, places.max(axis=0) + 1.5 * self.cell
        return np.stack([np.maximum(low, self.box[:, 0]), np.minimum(high, self.box[:, 1])], axis=1)


def _noise_and_shapes(
    grids: Sequence[_Grid], draws: int, rng: np.random.Generator
) -> tuple[Floats, Ints, Ints]:
    """Return levels of noise, and the number of a level and of a shape for each draw."""
    freedom = max(1, sum(grid.freedom for grid in grids) - 1)  # the shape is one
    rest = np.sum([grid.least for grid in grids], axis=0)
    noises = _NOISES * max(
        np.sqrt(rest.min() / freedom), 1e-12 * max(grid.scale for grid in grids), _TINY
    )
    logs = _PRIOR - rest / (2 * noises[:, None] ** 2) - freedom * np.log(noises)[:, None]
    chances = np.exp(logs - logsumexp(logs)).ravel()
    levels, shapes = np.unravel_index(
        rng.choice(len(chances), draws, p=chances / chances.sum()), logs.shape
    )
    return noises, levels, shapes


def _coefficients(
    bowl: Bowl, places: Floats, noise: Floats, shapes: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return costs (R,) and coefficients of the other terms (R, q), for a place and shape each."""
    f = height(bowl.x - places @ bowl.places.T, shapes[:, None])
    inverse, across = np.linalg.pinv(bowl.others), _across(bowl.others)
    own = f @ across
    square = np.maximum((own**2).sum(axis=1), _TINY)
    mean, deviation = own @ bowl.y / square, noise / np.sqrt(square)
    below = ndtr(-mean / deviation)  # costs are above 0
    chance = np.clip(below + rng.random(len(noise)) * (1 - below), _TINY, 1 - 1e-16)
    cost = np.maximum(mean + deviation * ndtri(chance), 0)
    root = np.linalg.cholesky(inverse @ inverse.T)
    others = (bowl.y - cost[:, None] * f) @ inverse.T
    scattered = rng.normal(size=others.shape) @ root.T
    return cost, np.asarray(others + noise[:, None] * scattered)


def _across(others: Floats) -> Floats:
    """Return the matrix that takes the other terms out of losses, (n, n)."""
    return np.asarray(np.eye(len(others)) - others @ np.linalg.pinv(others))


def _after_mean(draws: Floats) -> Floats:
    return np.concatenate([draws.mean(axis=0, keepdims=True), draws])
