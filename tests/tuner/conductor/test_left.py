"""What more trials could still find: the interval holds, and a search may end by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from model.engine.report import Report
from tests.tuner.simulated_search import FACTS, SPACE, Simulation, outcomes, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.left import FEWEST, _log_moment, best_after, estimate_left
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.journal.repeat import repeat, restored_decisions
from tuner.space.objective import Objective

WITHOUT = SPACE.replace("confirm: {top: 2, seeds: 2}", "confirm: off")


def bowl(rng: np.random.Generator, parameters: int, noise: float, count: int) -> Any:
    """Losses of random points of a quadratic, with the noise of seeds."""
    points = rng.uniform(-1, 1, (count, parameters))
    bottom, curvature = rng.uniform(-0.5, 0.5, parameters), 10 ** rng.uniform(-2, 0, parameters)
    return 3 + ((points - bottom) ** 2 * curvature).sum(1) + rng.normal(0, noise, count)


@pytest.mark.parametrize(("parameters", "noise"), [(1, 0.003), (3, 0.0), (4, 0.02), (8, 0.01)])
@pytest.mark.parametrize("count", [16, 48])
def test_interval_holds_the_best_of_as_many_draws_again(
    parameters: int, noise: float, count: int
) -> None:
    """300 searches; below 82 % has a chance of less than 1 in 1,000 at 90 %."""
    rng, hits = np.random.default_rng(parameters), 0
    for _ in range(300):
        losses = bowl(rng, parameters, noise, 2 * count)
        low, median, high = best_after(losses[:count].tolist(), count, count)
        assert low <= median <= high <= losses[:count].min()
        hits += low <= losses.min() <= high
    assert hits >= 0.82 * 300


def test_interval_follows_the_unit_of_the_losses_and_the_number_of_draws() -> None:
    losses = bowl(np.random.default_rng(0), 3, 0.01, 24)
    interval = np.array(best_after(losses.tolist(), 24, 24))
    assert 7 - 2 * interval == pytest.approx(
        7 - 2 * np.array(best_after(losses[::-1].tolist(), 24, 24))
    )
    scaled = np.array(best_after((10 + 5 * losses).tolist(), 24, 24))
    assert scaled == pytest.approx(10 + 5 * interval)
    lows = [best_after(losses.tolist(), 24, draws)[0] for draws in (1, 10, 100, 1000)]
    assert lows == sorted(lows, reverse=True)
    assert lows[0] > lows[-1]
    assert best_after([3.0] * 9, 9, 9) == (3.0, 3.0, 3.0)


def test_moments_equal_their_formulas() -> None:
    x = np.linspace(-3, 20, 47)
    below, density = norm.cdf(x), norm.pdf(x)
    assert np.exp(_log_moment(x, 1.0)) == pytest.approx(x * below + density, rel=2e-3)
    square = (x**2 + 1) * below + x * density
    assert np.exp(_log_moment(x, 2.0)) == pytest.approx(square, rel=2e-3)
    # E[max(x + Z, 0)^-1/2] is finite, though its integrand is not
    drawn = np.maximum(2.0 + np.random.default_rng(0).normal(size=200_000), 0)
    drawn = drawn[drawn > 0] ** -0.5
    assert np.exp(_log_moment(np.array([2.0]), -0.5)) == pytest.approx(
        drawn.sum() / 200_000, rel=0.06
    )


# of a search -------------------------------------------------------------------------------------


def searched(
    folder: Path,
    search: str,
    text: str = WITHOUT,
    train: Callable[[Trial, int], Report] = trained,
) -> Conductor:
    space = space_of(folder, search, text)
    return Simulation(Conductor(space, FACTS, 1), train=train).run()


def test_estimate_is_of_finished_draws_without_the_first_points(tmp_path: Path) -> None:
    def train(trial: Trial, step: int) -> Report:
        report = trained(trial, step)  # the defaults are far better than any draw
        return replace(report, val_loss=1.0) if trial.number == 0 else report

    conductor = searched(tmp_path, "trials: 20, scheduler: none, sampler: random", train=train)
    trials = conductor.board.searched
    left = estimate_left(conductor.space, trials)
    assert left is not None
    ended = [t for t in trials[1:] if t.has_finished]
    assert (left.more, left.trials, left.place, left.places) == (19, len(ended), 9, 9)
    assert len(ended) < 19  # some diverged
    assert (left.best, left.low, left.high, left.share) == (1.0, 1.0, 1.0, 0.0)
    others = estimate_left(conductor.space, [t for t in trials if t.number != 0])
    assert others is not None  # the next trial counts as the first point then
    assert others.low < others.best == others.high
    assert others.share == pytest.approx((others.best - others.low) / others.best)


def test_estimate_is_of_an_earlier_report_where_few_have_finished(tmp_path: Path) -> None:
    conductor = searched(tmp_path, "trials: 28, sampler: random")
    board = conductor.board
    left = estimate_left(conductor.space, board.searched)
    assert left is not None
    at_place = [t for t in board.searched[1:] if t.value_at("val_loss", left.place) is not None]
    assert left.places == 9 > left.place
    assert FEWEST <= left.trials == len(at_place)
    assert sum(t.has_finished for t in board.searched[1:]) < FEWEST
    assert board.best_finished is not None
    assert left.low <= left.best == board.value(board.best_finished)
    # a first point that was ahead at that report is what more trials would have to beat
    ahead = board.searched[0].reports
    ahead[left.place - 1] = replace(ahead[left.place - 1], val_loss=0.1)
    beaten = estimate_left(conductor.space, board.searched)
    assert beaten is not None
    assert (beaten.low, beaten.high) == (left.best, left.best)


def test_trials_that_a_limit_stopped_do_not_count(tmp_path: Path) -> None:
    conductor = searched(tmp_path, "trials: 20, scheduler: none, sampler: random")
    trials = conductor.board.searched
    left = estimate_left(conductor.space, trials)
    cut = replace(trials[5], number=20, reports=trials[5].reports[:2], outcome=Outcome.stopped(2))
    assert cut.is_stopped
    assert estimate_left(conductor.space, [*trials, cut]) == left
    paused = conductor.space.search.model_copy(update={"scheduler": "asha"})
    space = conductor.space.model_copy(update={"search": paused})
    more, fewer = estimate_left(space, [*trials, cut]), estimate_left(space, trials)
    assert more is not None
    assert fewer is not None
    assert more.more == fewer.more + 1


def test_nothing_is_told_of_few_trials_or_of_no_draws(tmp_path: Path) -> None:
    few = searched(tmp_path, "trials: 8, scheduler: none, sampler: random")
    assert estimate_left(few.space, few.board.searched) is None
    conductor = searched(tmp_path, "trials: 20, scheduler: none, sampler: random")
    space, trials = conductor.space, conductor.board.searched
    assert estimate_left(space, trials) is not None
    several = space.model_copy(update={"further_objectives": (Objective(metric="parameters"),)})
    several.__dict__.pop("objectives", None)
    assert estimate_left(several, trials) is None
    for change in ({"sampler": "grid"}, {"scheduler": "pbt"}):
        changed = space.model_copy(update={"search": space.search.model_copy(update=change)})
        assert estimate_left(changed, trials) is None
    for trial in trials:  # a search that has just begun
        trial.reports, trial.outcome = [], None
    assert estimate_left(space, trials) is None


def test_search_ends_when_little_is_left(tmp_path: Path) -> None:
    """The end follows from the reports alone, so that the search repeats; then it confirms."""
    setting = "trials: 400, scheduler: none, sampler: random, stop_when_left_below: 6 %"
    conductor = searched(tmp_path, setting, SPACE)
    board = conductor.board
    assert conductor.limit == "stop_when_left_below"
    assert FEWEST < len(board.searched) < 400
    left = estimate_left(conductor.space, board.searched)
    assert left is not None
    assert left.share < 0.06
    before = estimate_left(conductor.space, [t for t in board.searched][:-1])
    assert before is None or before.share >= 0.06
    assert conductor.confirmation is not None
    assert outcomes(searched(tmp_path, setting, SPACE)) == outcomes(conductor)
    stricter = searched(tmp_path, setting.replace("6 %", "0.05"), SPACE)
    assert len(stricter.board.searched) > len(board.searched)
    assert math.isfinite(left.low)


def test_resumed_search_ends_at_the_same_trial(tmp_path: Path) -> None:
    text = "trials: 400, scheduler: none, sampler: random, stop_when_left_below: 6 %"
    whole = Simulation(Conductor(space_of(tmp_path, text, SPACE), FACTS, 2))
    whole.run()
    count = 3 * len(whole.events) // 4
    restored = restored_decisions(whole.events[:count], lambda _: ())
    conductor = Conductor(whole.conductor.space, FACTS, 2, restored)
    repeat(conductor, whole.events[:count], "lm-1")
    resumed = Simulation(conductor, whole.events[:count]).run()
    assert resumed.limit == "stop_when_left_below"
    assert outcomes(resumed) == outcomes(whole.conductor)
