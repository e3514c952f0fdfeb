"""Laws of known optima: exponents, intervals on sizes that were held out, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import least_squares

from tests.tuner.scaling.made_runs import (
    LOSS,
    MILLION,
    RATE,
    best_loss,
    best_rate,
    made_runs,
)
from tuner.errors import TunerError
from tuner.results.bowls import Estimate
from tuner.scaling.laws import ScalingLaws, fit_laws
from tuner.scaling.optima import smooth
from tuner.scaling.runs import ScalingRun, by_size
from tuner.scaling.saturating import fit_saturating

SIZES = [MILLION, 2 * MILLION, 4 * MILLION, 8 * MILLION]


def study(runs: list[ScalingRun], resamples: int = 200, **options: str) -> ScalingLaws:
    return fit_laws(smooth(by_size(runs), resamples=resamples), **options)


def holds(interval: Estimate, value: float) -> bool:
    return interval.low <= value <= interval.high


def test_laws_without_noise_are_recovered() -> None:
    found = study(made_runs(SIZES, noise=0))
    rate, loss = found.laws
    assert found.kind == "sizes"
    assert rate.exponents[0].value == pytest.approx(RATE, rel=1e-6)
    assert loss.constant is not None
    assert loss.constant.value == pytest.approx(LOSS[0], rel=1e-3)
    assert loss.exponents[0].value == pytest.approx(-LOSS[2], rel=1e-3)
    at = {"parameters": 64e6}
    assert rate.predict(at).value == pytest.approx(best_rate(64e6), rel=1e-6)
    assert loss.predict(at).value == pytest.approx(best_loss(64e6), rel=1e-4)
    assert found.tokens_at(64e6) == pytest.approx(20 * 64e6, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("above", [1.0, 2.5], ids=["symmetric", "one-sided"])
@pytest.mark.parametrize("sizes", [SIZES[:3], SIZES], ids=["three", "four"])
def test_intervals_hold_sizes_that_were_held_out(sizes: list[int], above: float) -> None:
    """Of 40 studies, at 4 times the largest size; the trained target has noise of its own."""
    count, hits = 40, {"α_max": 0, "loss": 0, "exponent": 0}
    target = 4 * sizes[-1]
    for seed in range(count):
        found = study(made_runs(sizes, seed=seed, above=above))
        rate, loss = found.laws
        at = {"parameters": target}
        measured = best_loss(target) + np.random.default_rng([seed, 1]).normal(0, 0.01)
        hits["α_max"] += holds(rate.predict(at), best_rate(target))
        hits["loss"] += holds(loss.predict(at), measured)
        hits["exponent"] += holds(rate.exponents[0], RATE)
    assert min(hits.values()) >= 0.85 * count, hits


# every pair of values is in it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "above", "noise"),
    [
        (4, 1.0, 0.003), (6, 1.0, 0.01), (4, 1.0, 0.03),
        (6, 1.5, 0.003), (4, 1.5, 0.01), (6, 1.5, 0.03),
        (4, 2.5, 0.01), (6, 2.5, 0.003), (6, 2.5, 0.03), (4, 2.5, 0.03),
    ],
)  # fmt: skip
def test_intervals_of_rate_and_exponent_hold_for_any_bowl(
    count: int, above: float, noise: float
) -> None:
    sizes = [2**k * MILLION for k in range(count)]
    hits, exponents = 0, 0
    for seed in range(60):
        rate = study(made_runs(sizes, seed=seed, noise=noise, above=above)).laws[0]
        hits += holds(rate.predict({"parameters": 4 * sizes[-1]}), best_rate(4 * sizes[-1]))
        exponents += holds(rate.exponents[0], RATE)
    assert min(hits, exponents) >= 0.85 * 60, (hits, exponents)


@pytest.mark.slow
def test_intervals_are_not_idly_wide() -> None:
    """Four sizes with little noise tell the rate of a size 4 times as large to 40 %."""
    widths = []
    for seed in range(60):
        found = study(made_runs(SIZES, seed=seed)).laws[0].predict({"parameters": 4 * SIZES[-1]})
        widths.append(math.log(found.high / found.low))
    assert np.median(widths) < math.log(1.4)


def test_optima_and_line_are_near_those_of_numpy() -> None:
    runs = made_runs(SIZES, seed=3, noise=1e-4)
    found = study(runs)
    for n, optimum in zip(SIZES, found.optima.used, strict=True):
        own = [r for r in runs if r.parameters == n]
        c = np.polyfit([math.log(r.rate) for r in own], [r.loss for r in own], 2)
        assert optimum.values["α_max"] == pytest.approx(math.exp(-c[1] / (2 * c[0])), rel=1e-2)
        low, high = optimum.intervals["α_max"]
        assert low < best_rate(n) < high
    bottoms = [math.log(optimum.values["α_max"]) for optimum in found.optima.used]
    slope = np.polyfit(np.log(SIZES), bottoms, 1)[0]
    assert found.laws[0].exponents[0].value == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_loss_law_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.geomspace(1, 32, 6)
    y = 1.5 + 0.8 * x**-0.4 + rng.normal(0, 0.002, 6)
    found = fit_saturating(x[:, None], y[None])

    def errors(p: np.ndarray) -> np.ndarray:
        return np.asarray((p[0] + p[1] * x ** -p[2]) / y - 1)

    other = least_squares(errors, [1.0, 1.0, 0.5], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    ours = errors(np.array([found.constant[0], found.factors[0, 0] * found.middle[0] **
                            found.exponents[0, 0], found.exponents[0, 0]]))  # fmt: skip
    assert (ours**2).sum() == pytest.approx(2 * other.cost, rel=1e-4)
    assert found.exponents[0, 0] == pytest.approx(other.x[2], rel=1e-3)
    assert found.constant[0] == pytest.approx(other.x[0], rel=1e-3)


def test_loss_law_of_two_variables_is_that_of_chinchilla() -> None:
    n, d = np.array([(a, b) for a in (1, 2, 4, 8) for b in (10, 20, 40, 80)], dtype=float).T
    y = 1.69 + 0.9 * n**-0.34 + 1.3 * d**-0.28
    found = fit_saturating(np.stack([n, d], axis=1), np.stack([y, y * 1.01]))
    assert found.constant == pytest.approx([1.69, 1.69 * 1.01], rel=1e-2)
    assert found.exponents[0] == pytest.approx([0.34, 0.28], rel=1e-2)
    far = np.array([64.0, 640.0])
    expected = 1.69 + 0.9 * 64**-0.34 + 1.3 * 640**-0.28
    assert found.value(far)[0] == pytest.approx(expected, rel=2e-3)


def test_losses_that_do_not_fall_have_a_constant_only() -> None:
    found = fit_saturating(np.array([[1.0], [2.0], [4.0]]), np.array([[2.0, 2.1, 2.2]]))
    assert found.factors[0, 0] == 0
    assert found.constant[0] == pytest.approx(2.1, rel=1e-2)


@pytest.mark.slow
def test_rate_and_batch_are_fitted_together() -> None:
    runs = made_runs(SIZES, noise=0, batches=(8, 16, 32))
    found = study(runs)
    laws = {law.quantity: law for law in found.laws}
    assert list(laws) == ["α_max", "B", "loss"]
    at = {"parameters": 64e6}
    assert laws["B"].predict(at).value == pytest.approx(16, rel=1e-6)
    assert laws["α_max"].predict(at).value == pytest.approx(best_rate(64e6), rel=1e-6)
    only = fit_laws(found.optima, only="B")
    assert [law.quantity for law in only.laws] == ["B", "loss"]


def test_tokens_that_vary_apart_from_the_size_are_a_variable() -> None:
    def rate(n: float, d: float) -> float:
        return float(3e-3 * (n / MILLION) ** -0.7 * (d / 20 / MILLION) ** 0.3)

    runs = []
    for times in (10, 20, 40):
        tokens = times * MILLION

        def budget(n: int, tokens: int = tokens) -> float:
            return tokens

        runs += made_runs(SIZES[:3], noise=0, rate=rate, tokens=budget)
    found = study(runs)
    assert found.kind == "joint"
    assert [i.value for i in found.laws[0].exponents] == pytest.approx([-0.7, 0.3], rel=1e-6)
    with pytest.raises(TunerError, match="give --parameters and --tokens"):
        fit_laws(found.optima, variable="flops")


def isoflop(flops: float, seed: int = 0, noise: float = 0.0) -> list[ScalingRun]:
    """Trials with a best size of a million weights at 1.2e14 FLOPs, growing by their root."""
    best = float(MILLION * (flops / 1.2e14) ** 0.5)
    sizes = [round(best * 2**k) for k in (-1.2, -0.4, 0.5, 1.3)]
    return made_runs(
        sizes, seed=seed, noise=noise, tokens=lambda n: flops / 6 / n,
        loss=lambda n, d: float(1.7 + (flops / 1.2e14) ** -0.15 + 0.05 * math.log2(n / best) ** 2),
    )  # fmt: skip


def test_one_budget_of_compute_has_a_best_size_and_no_loss_law() -> None:
    found = study(isoflop(1.2e14))
    (best,) = found.best_sizes
    assert (found.kind, best.is_edge) == ("isoflop", False)
    assert best.parameters.value == pytest.approx(MILLION, rel=1e-4)
    assert best.loss.value == pytest.approx(2.7, rel=1e-4)
    assert [law.quantity for law in found.laws] == ["α_max"]
    with pytest.raises(TunerError, match="one budget of compute"):
        fit_laws(found.optima, variable="flops")


@pytest.mark.slow
def test_interval_of_the_best_size_holds_it() -> None:
    hits = 0
    for seed in range(60):
        (best,) = study(isoflop(1.2e14, seed, 0.01)).best_sizes
        hits += holds(best.parameters, MILLION)
    assert hits >= 0.85 * 60


def test_three_budgets_of_compute_have_laws_in_compute() -> None:
    found = study([r for c in (1.2e14, 4.8e14, 1.9e15) for r in isoflop(c)])
    laws = {law.quantity: law for law in found.laws}
    assert found.kind == "levels"
    assert laws["parameters"].exponents[0].value == pytest.approx(0.5, rel=1e-3)
    assert laws["α_max"].exponents[0].value == pytest.approx(0.5 * RATE, rel=1e-3)
    value = laws["loss"].predict({"flops": 1.2e16}).value
    assert value == pytest.approx(1.7 + 100**-0.15, rel=2e-3)


def test_optimum_at_the_edge_is_said_and_left_out() -> None:
    runs = made_runs(SIZES, noise=0.001)
    cut = [r for r in runs if r.parameters != SIZES[0] or r.rate < best_rate(SIZES[0])]
    more = [ScalingRun("s-1", 99, SIZES[0], r.tokens, r.flops, r.rate / 8, 8, r.loss + 0.3)
            for r in cut if r.parameters == SIZES[0]]  # fmt: skip
    found = study(cut + more)
    assert [bool(o.edges) for o in found.optima.all] == [True, False, False, False]
    assert len(found.optima.used) == 3


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (made_runs(SIZES[:2]), "needs three sizes"),
        (made_runs(SIZES, rates=2), r"too few have 1,000,000 weights at [\d,]+ tokens, 2 trials"),
        (made_runs(SIZES, rates=3)[:9] + made_runs(SIZES[3:], rates=2), None),
        (made_runs(SIZES, rates=1), "several values finish at each size"),
        (made_runs(SIZES[:3], rates=3)[:9], "measure noise"),
    ],
)
def test_studies_that_tell_nothing_are_refused(runs: list[ScalingRun], reason: str | None) -> None:
    with pytest.raises(TunerError, match=reason or "measure noise"):
        study(runs)
