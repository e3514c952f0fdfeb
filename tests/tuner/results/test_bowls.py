"""Bowls of many shapes, none of them a shape of the fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tuner.results import bowls as module
from tuner.results.bowls import Bowl, Floats, fit_bowls, height, near

COST = 0.04


def one_sided(times: float) -> Callable[[Floats], Floats]:
    """A parabola that is so many times as steep above its lowest point, and ever steeper there."""
    steep = 0.15 if times > 1 else 0.0
    return lambda u: np.where(u > 0, times * u**2 + steep * u**3, u**2)


def study(
    times: float, sizes: int, rates: int, noise: float, seed: int, step: float = 1.0
) -> list[Bowl]:
    """Bowls with their lowest points at 0, and rates around them."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(sizes):
        u = step * (np.arange(rates) - (rates - 1) / 2) + rng.uniform(-0.5, 0.5)
        y = 3 + COST * one_sided(times)(u) + rng.normal(0, noise, rates)
        is_near = near(u[:, None], y)
        made.append(Bowl(u[is_near], y[is_near], np.ones((is_near.sum(), 1))))
    return made


def cover(times: float, sizes: int, rates: int, noise: float, count: int, step: float = 1) -> float:
    """Share of studies whose 90 % interval of the first lowest point holds it."""
    hits = 0
    for seed in range(count):
        made = study(times, sizes, rates, noise, seed, step)
        low, high = np.quantile(fit_bowls(made, 400, seed).places[0][1:, 0], (0.05, 0.95))
        hits += low <= 0 <= high
    return hits / count


@pytest.mark.slow
@pytest.mark.parametrize("times", [1.0, 1.5, 2.5])
def test_interval_holds_the_lowest_point(times: float) -> None:
    """60 studies; below 0.8 has a chance of 2 % at 90 %. With a parabola: 0 to 5 % at 1.5, 2.5."""
    assert cover(times, 4, 5, 0.005, 60) >= 0.8


# every pair of values is in it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "times", "sizes", "rates"),
    [
        (0.003, 1.0, 3, 4), (0.003, 1.5, 4, 5), (0.003, 2.5, 6, 5),
        (0.01, 1.0, 4, 5), (0.01, 1.5, 6, 5), (0.01, 2.5, 3, 4),
        (0.03, 1.0, 6, 5), (0.03, 1.5, 3, 4), (0.03, 2.5, 4, 5),
    ],
)  # fmt: skip
def test_interval_holds_the_lowest_point_of_any_study(
    noise: float, times: float, sizes: int, rates: int
) -> None:
    assert cover(times, sizes, rates, noise, 40) >= 0.85


def test_parabolas_have_the_intervals_of_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the parabola as the only shape: NumPy's vertex, and Student's t by its deviation."""
    monkeypatch.setattr(module, "_SHAPES", module._SHAPES[:1])
    monkeypatch.setattr(module, "_PRIOR", module._PRIOR[:1])
    monkeypatch.setattr(module, "_UNKNOWN", 0.0)
    x = np.linspace(-2.5, 2.5, 16)
    y = 3 + COST * (x - 0.2) ** 2 + np.random.default_rng(0).normal(0, 0.01, len(x))
    found = fit_bowls([Bowl(x, y, np.ones((len(x), 1)))], 20_000)
    (a, b, _), covariance = np.polyfit(x, y, 2, cov=True)
    gradient = np.array([b / (2 * a**2), -1 / (2 * a), 0])
    deviation = math.sqrt(gradient @ covariance @ gradient)
    places = found.places[0][1:, 0]
    assert places.mean() == pytest.approx(-b / (2 * a), abs=deviation / 10)
    half = np.diff(np.quantile(places, (0.05, 0.95)))[0] / 2
    assert half == pytest.approx(1.78 * deviation, rel=0.08)  # t of 12 to 13 degrees of freedom
    assert found.costs[0, 0] == pytest.approx(a, rel=0.03)
    assert found.noise[0] == pytest.approx(math.sqrt(((y - np.polyval(np.polyfit(x, y, 2), x)) ** 2)
                                                     .sum() / 13), rel=0.1)  # fmt: skip


def test_shapes_are_bowls() -> None:
    """Each falls to 0 at its lowest point and rises on both sides; the first is a parabola."""
    u = np.linspace(-4, 4, 801)
    shapes = np.arange(len(module._SHAPES))
    heights = height(u, shapes[:, None])
    assert heights[0] == pytest.approx(u**2)
    assert heights[:, 400] == pytest.approx(0)
    slopes = np.diff(heights, axis=1)
    assert (slopes[:, :400] < 0).all()
    assert (slopes[:, 400:] > 0).all()
    ratios = 2**module._SKEWS
    assert ratios.min() < 0.75
    assert ratios.max() > 4.9
