"""Verdicts on sweeps whose optima are known."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from tuner.results.bowls import Estimate
from tuner.space.settings import Proxy
from tuner.transfer.sweep import Kind, Size, Sweep
from tuner.transfer.verdict import (
    Optimum,
    TransferVerdict,
    _more_seeds,
    judge,
    move_of,
    optima_of,
)

RATES = (-2, -1, 0, 1, 2)


def sweep(
    kind: Kind,
    size: float,
    at: float,
    *,
    noise: float = 0.0,
    curvature: float = 0.05,
    rates: tuple[float, ...] = RATES,
    rng: np.random.Generator | None = None,
) -> Sweep:
    """A parabola with its minimum at `at`; seeds differ by 0.1 in their level."""
    rng = rng or np.random.default_rng(0)
    losses = {
        x: tuple(
            4 + 0.1 * seed + curvature * (x - at) ** 2 + noise * rng.normal() for seed in range(2)
        )
        for x in map(float, rates)
    }
    return Sweep(kind, Size(Proxy(width=1 / 8), size, f"d_model {16 * 2**size:g}"), losses)


def family(*at: float, control: float = 0.0, noise: float = 0.0, seed: int = 0) -> list[Sweep]:
    rng = np.random.default_rng(seed)
    standard = [sweep("standard", i, -control * i, noise=noise, rng=rng) for i in range(3)]
    return [sweep("scaled", i, x, noise=noise, rng=rng) for i, x in enumerate(at)] + standard


def optimum(sweep: Sweep) -> Optimum | None:
    (found,) = optima_of([sweep])
    return found


def test_minimum_of_a_parabola_is_found() -> None:
    found = optimum(sweep("scaled", 0, 0.3))
    assert found is not None
    assert (found.octaves, found.cost) == pytest.approx((0.3, 0.05))
    assert found.loss == pytest.approx(4.05)


def test_optimum_that_stays_is_verified() -> None:
    verdict = judge(family(0.1, 0.2, 0.3, control=0.6), doublings=3)
    assert (verdict.word, verdict.factor) == ("verified", 1)
    assert verdict.sentence(2).startswith("Verified: the best learning rate moves by +0.20 (")
    assert verdict.control.octaves is not None
    assert verdict.control.octaves.value == pytest.approx(-1.2)
    assert verdict.control.exponent is not None
    assert verdict.control.exponent.value == pytest.approx(-0.6)


def test_optimum_that_moves_along_a_line_has_an_exponent() -> None:
    verdict = judge(family(0.6, 0.0, -0.6), doublings=3)
    assert verdict.word == "moves"
    assert verdict.move.exponent is not None
    assert verdict.move.exponent.value == pytest.approx(-0.6)
    assert verdict.factor == pytest.approx(2 ** (-0.6 * 3))
    assert verdict.move.given_up is not None
    assert verdict.move.given_up.value == pytest.approx(0.05 * 1.2**2 / 4.05)
    assert "multiply the learning rates by 0.287 at the target" in verdict.sentence(2)


@pytest.mark.parametrize(
    ("sweeps", "reason"),
    [
        (family(0.9, -0.9, 0.9 - 1.8e-9), ""),
        (family(1.0, -0.9, -0.5), "do not lie on a line"),
        (family(0, 0, 3.0), "show no lowest point between 0.25 and 4 times the winner's"),
    ],
)
def test_other_optima_do_not_transfer(sweeps: list[Sweep], reason: str) -> None:
    verdict = judge(sweeps, doublings=3)
    if not reason:  # both ends are equal: nothing moves, whatever lies between
        assert verdict.word == "verified"
        return
    assert verdict.word == "not transferable"
    assert reason in verdict.reason


def test_flat_losses_have_no_minimum() -> None:
    flat = [sweep("scaled", i, 0.0, curvature=0.0, noise=0.01) for i in range(3)]
    verdict = judge([*flat, *family(0, 0, 0)[3:]], doublings=3)
    assert verdict.word == "not transferable"


def test_diverged_rates_are_left_out() -> None:
    wide = sweep("scaled", 0, 0.3, rates=(-2, -1, 0, 1, 2, 3))
    losses = {**wide.losses, 3.0: (math.inf, 5.0)}
    found = optimum(Sweep("scaled", wide.size, losses))
    assert found is not None
    assert found.octaves == pytest.approx(0.3)
    few = {x: values if x < 1 else (math.inf, math.inf) for x, values in losses.items()}
    assert optimum(Sweep("scaled", wide.size, few)) is None


@pytest.mark.slow
def test_intervals_hold_the_true_move() -> None:
    """Of 60 families with noise, at least 48: 90 % of 60 are 54."""
    hits = count = 0
    for seed in range(60):
        move = move_of(family(0.5, 0.1, -0.3, noise=0.01, seed=seed)[:3])
        if move.octaves is None:
            continue
        count += 1
        hits += move.octaves.low <= -0.8 <= move.octaves.high
    assert count >= 55
    assert hits >= 0.8 * count


# what is said of noisy sweeps ---------------------------------------------------------------------


def noisy_verdict(
    move: float, cost: float, noise: float, above: float, seed: int
) -> TransferVerdict:
    """Verdict on three sizes, two seeds each, with sweeps that grow as those of `sweep_of` do.

    Args:
        move: octaves from the smallest to the largest size.
        cost: loss of an octave below the best rate.
        noise: of a trial.
        above: times as much above the best rate.
        seed: of the noise.
    """
    rng = np.random.default_rng([seed, 5])
    shift = rng.uniform(-0.5, 0.5)
    sweeps = []
    for size in range(3):
        at, losses = shift + move * (size - 1) / 2, dict[float, tuple[float, ...]]()
        todo = list(map(float, RATES))
        while todo and max(map(abs, todo)) <= 5:
            for x in todo:
                u = x - at
                bowl = cost * (u**2 * above + 0.15 * u**3 * (above > 1) if u > 0 else u**2)
                losses[x] = tuple(3 + 0.1 * k + bowl + noise * rng.normal() for k in range(2))
            best, low, high = min(losses, key=lambda x: sum(losses[x])), min(losses), max(losses)
            todo = [low - 1] if best == low else [high + 1] if best == high else []
        sweeps.append(Sweep("scaled", Size(Proxy(width=1 / 8), size, f"d_model {size}"), losses))
    control = [Sweep("standard", each.size, {0.0: (4.0, 4.0)}) for each in sweeps]
    return judge([*sweeps, *control], 2)


def words(move: float, cost: float, noise: float, above: float, count: int) -> Counter[str]:
    return Counter(noisy_verdict(move, cost, noise, above, seed).word for seed in range(count))


@pytest.mark.slow
def test_verified_needs_evidence() -> None:
    """Noise 1.5 times what an octave costs: a move of an octave is seldom called none."""
    said = words(1.0, 0.01, 0.015, 1.0, 40)
    assert said["verified"] <= 2
    assert said["not transferable"] <= 4
    assert words(0.0, 0.02, 0.01, 1.0, 20)["verified"] >= 17
    assert words(0.0, 0.02, 0.03, 1.0, 20)["not shown to move"] >= 2


def test_more_seeds_would_show_it() -> None:
    verdict = next(
        found for seed in range(20)
        if (found := noisy_verdict(0.0, 0.02, 0.04, 1.0, seed)).word == "not shown to move"
    )  # fmt: skip
    assert re.fullmatch(
        r"Not shown to move: the best learning rate moves by .* octaves over 4 times the size, "
        r"which gives up .*; about \d+ more seeds? would show whether it does\.",
        verdict.sentence(2),
    )
    assert verdict.factor == 1
    octaves = verdict.move.octaves
    assert octaves is not None
    assert octaves.low <= 0 <= octaves.high
    assert max(-octaves.low, octaves.high) > 0.5


@pytest.mark.parametrize(
    ("move", "half", "more"), [(0.0, 1.0, 6), (0.4, 0.8, 6), (1.0, 1.1, 1), (0.1, 0.41, 1)]
)
def test_number_of_seeds_narrows_the_interval(move: float, half: float, more: int) -> None:
    """Two seeds and `more` bring an interval of ± half within ½ octave of 0, or off 0."""
    assert _more_seeds(Estimate(move, move - half, move + half), 2) == more


# every pair of values is in it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("move", "cost", "ratio", "above"),
    [
        (0.0, 0.02, 0.5, 1.0), (0.0, 0.01, 1.5, 2.5), (0.5, 0.02, 0.5, 2.5), (0.5, 0.01, 1.5, 1.0),
        (1.0, 0.02, 0.5, 2.5), (1.0, 0.01, 1.5, 1.0), (-1.0, 0.02, 0.5, 1.0),
        (-1.0, 0.01, 1.5, 2.5), (2.0, 0.02, 0.5, 1.0), (2.0, 0.01, 1.5, 2.5),
    ],
)  # fmt: skip
def test_words_and_intervals_of_noisy_sweeps(
    move: float, cost: float, ratio: float, above: float
) -> None:
    found = [noisy_verdict(move, cost, ratio * cost, above, seed) for seed in range(40)]
    said = Counter(verdict.word for verdict in found)
    assert said["not transferable"] <= 0.1 * len(found)
    if abs(move) >= 1:
        assert said["verified"] <= 0.05 * len(found)
    moves = [v.move.octaves for v in found if v.move.octaves is not None]
    assert sum(m.low <= move <= m.high for m in moves) >= 0.85 * len(moves)
