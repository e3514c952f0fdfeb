"""Basins of learning rates: of known parabolas, and of the committed table."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from tests.tuner.results.bench_table import ROOT, table_trials
from tests.tuner.results.random_trials import SPACE, Loss, Made, load
from tuner.results.advice import comparable
from tuner.results.sensitivity import Basin, basins
from tuner.space_file.load import load_space

RATE = "max_learning_rate"
COST = 0.03  # of a factor of two


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spaces")


def bowl(optimum: float, noise: float = 0.0, seed: int = 0) -> Loss:
    rng = random.Random(seed)
    return lambda d: (
        3 + COST * (math.log2(float(d[RATE]) / optimum)) ** 2 + noise * abs(rng.gauss(0, 1))
    )


def found_in(made: Made) -> list[Basin]:
    points, _ = comparable(made.space, made.rows)
    return basins(made.space, points)


def test_parabola_is_found(folder: Path) -> None:
    (basin,) = found_in(Made(load(folder), bowl(2e-3)))
    last = 2 / 5  # `random_trials` adds 2 / report
    assert basin.bottom == pytest.approx(2e-3, rel=1e-6)
    assert basin.loss == pytest.approx(3 + last, rel=1e-6)
    assert (basin.low, basin.cost, basin.high) == pytest.approx((COST, COST, COST), rel=1e-6)
    assert basin.width(COST * 4) == pytest.approx(4, rel=1e-6)
    assert basin.width(COST * 1e3) == 8  # no farther than the window
    assert basin.value(4e-3) == pytest.approx(basin.loss + COST, rel=1e-6)


@pytest.mark.parametrize("times", [2.5, 5.0])
def test_diverged_trials_do_not_bend_the_parabola(folder: Path, times: float) -> None:
    """A trial that diverged has no loss; the others say what a factor of two costs."""
    best, whole = 2e-3, bowl(2e-3, 0.002)
    loss: Loss = lambda d: math.inf if float(d[RATE]) > times * best else whole(d)  # noqa: E731
    (basin,) = found_in(Made(load(folder), loss, trials=48))
    assert max(basin.rates) <= times * best
    assert basin.cost == pytest.approx(COST, rel=0.1)
    assert basin.low <= COST <= basin.high
    assert abs(math.log2(basin.bottom / best)) < 0.1


def test_interval_holds_the_true_cost(folder: Path) -> None:
    """Of 20 searches whose other parameters add noise; 15 or fewer would have a chance of 4 %."""
    space, hits = load(folder), 0
    for seed in range(20):
        (basin,) = found_in(Made(space, bowl(2e-3, 0.05, seed), trials=40, seed=seed))
        hits += basin.low <= COST <= basin.high
    assert hits >= 16


@pytest.mark.parametrize("seed", range(3))
def test_losses_without_a_basin_have_none(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    assert found_in(Made(load(folder), lambda _: 3 + rng.random(), seed=seed)) == []


def test_optimum_outside_of_the_trials_is_no_bottom(folder: Path) -> None:
    assert found_in(Made(load(folder), bowl(10.0))) == []


def test_few_trials_have_no_basin(folder: Path) -> None:
    assert found_in(Made(load(folder), bowl(2e-3), trials=6)) == []


def test_each_conditional_rate_has_a_basin_the_lowest_first(folder: Path) -> None:
    space = load(folder, """hyperparameters:
  optimizer: {choice: [adamw, sgd]}
  α_max: [{log: [1e-4, 3e-2], when: {optimizer: adamw}}, {log: [1e-2, 3], when: {optimizer: sgd}}]
""")  # fmt: skip
    optima = {"adamw": (2e-3, 3.5), "sgd": (0.2, 3.0)}

    def loss(d: dict[str, object]) -> float:
        best, bottom = optima[str(d["optimizer"])]
        rate = next(float(str(v)) for k, v in d.items() if k.startswith(RATE))
        return bottom + COST * math.log2(rate / best) ** 2

    found = found_in(Made(space, loss, trials=60))
    assert [basin.bottom for basin in found] == pytest.approx([0.2, 2e-3], rel=1e-6)


def test_advice_says_what_a_factor_of_two_costs(folder: Path) -> None:
    made = Made(load(folder, SPACE), bowl(2e-3, 0.01))
    (sentence,) = [s for s in made.advise(spread=COST / 4) if s.startswith("A factor of two in ")]
    assert "α_max away from 0.00" in sentence
    assert "of val_loss (90 % interval 0.0" in sentence
    assert "within a factor of 1.4 it costs less than seeds differ (0.0075)." in sentence
    (other,) = [s for s in made.advise() if s.startswith("A factor of two in ")]
    assert other.endswith("it costs less than 1 % of the loss.")


@pytest.mark.slow
def test_interval_of_48_trials_holds_the_cost_of_the_table() -> None:
    """The basin of 257 real trials, and of 48 of them at a time."""
    space = load_space(ROOT / "search_spaces" / "lm.yaml")
    points = [(t.draw, t.objective("val_loss")) for t in table_trials()]
    (whole,) = basins(space, points)
    rng, hits, count = random.Random(0), 0, 0
    for _ in range(40):
        for basin in basins(space, rng.sample(points, 48)):
            count += 1
            hits += basin.low <= whole.cost <= basin.high
    assert count >= 20
    assert hits >= 0.8 * count
