"""The verdict of a comparison, against scipy.stats and by simulation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from model.engine.report import Report, Status
from tests.tuner.conductor.test_arms import SPACE
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.paired_test import corrected, paired_p
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import (
    ArmComparison,
    headline,
    p_text,
    speed_up,
    verdict_of,
    verdict_sentences,
)


def test_p_value_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    for count in (2, 3, 5, 20):
        a, b = random.normal(size=(2, count))
        expected = scipy.stats.ttest_rel(a, b).pvalue
        assert paired_p(list(b - a)) == pytest.approx(expected, rel=1e-9)
    assert paired_p([0.0, 0.0]) == 1.0
    assert paired_p([0.5, 0.5]) == 0.0
    assert paired_p([0.5]) == 1.0


def test_p_values_are_corrected_by_holm() -> None:
    """The example of R's `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")`."""
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert corrected(p_values) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert corrected({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_speed_up_is_where_the_curve_crosses_the_other_loss() -> None:
    other = [(100.0, 5.0), (200.0, 4.0), (300.0, 3.5)]
    best = [(100.0, 4.5), (200.0, 3.6), (300.0, 3.0)]
    assert speed_up(best, other) == pytest.approx(300 / (200 + 100 * 0.1 / 0.6))
    assert speed_up(other, best) is None, "never"
    assert speed_up([(100.0, 3.4), (200.0, 3.3)], other) is None, "before the first report"
    assert speed_up([], []) is None


# searches ----------------------------------------------------------------------------------------


class Losses:
    """Losses of each optimizer: a true mean, noise of the seed, and noise of its own."""

    def __init__(self, means: dict[str, float], seed: int = 0, noise: float = 0.01) -> None:
        self._means, self._noise, self._seed = means, noise, seed

    def __call__(self, trial: Trial, step: int) -> Report:
        h, name = trial.spec.hyperparameters, trial.spec.hyperparameters.optimizer
        own = sorted(self._means).index(name)
        key = [self._seed, trial.spec.seed % 2**32, own]
        shared, alone = (np.random.default_rng(k).normal() for k in (key[:2], key))
        final = self._means[name] + 0.05 * shared + self._noise * alone
        loss = final + 0.5 * (1 - step / h.total_steps)
        status = Status.FINISHED if step == h.total_steps else Status.TRAINING
        if math.isnan(final):
            status = Status.DIVERGED
        tokens = step * trial.spec.tokens_per_step
        return Report(str(trial.number), status, step, tokens, loss, loss, 1.0, 0.01)


def judged(
    folder: Path, losses: Losses, text: str = SPACE, search: str = "trials: 3"
) -> ArmComparison:
    space = space_of(folder, f"{search}, scheduler: none, sampler: random", text)
    simulation = Simulation(Conductor(space, FACTS, 3), train=losses)
    conductor = simulation.run()
    verdict = verdict_of(conductor.board, space, conductor.confirmation)
    assert verdict is not None
    return verdict


FIVE = SPACE.replace("confirm: {seeds: 2}", "confirm: {seeds: 5}")
_KEPT = [line for line in FIVE.splitlines() if "{optimizer: momentum}" not in line]
TWO = "\n".join(_KEPT).replace("[lion, adamw, momentum]", "[lion, adamw]")


def test_verdict_compares_the_best_arm_with_each_other(tmp_path: Path) -> None:
    means = {"lion": 3.0, "adamw": 3.001, "momentum": 3.3}
    verdict = judged(tmp_path, Losses(means), FIVE)
    assert {each.arm.value for each in verdict.arms[:2]} == {"lion", "adamw"}
    assert verdict.arms[2].arm.value == "momentum"
    equal, worse = verdict.differences
    assert (equal.verdict, worse.verdict) == ("cannot be told apart", "better")
    assert worse.gain is not None
    assert worse.gain.low < 100 * 0.3 / 3.3 < worse.gain.high
    assert worse.speed_up == pytest.approx(1 / (1 - 0.3 / 0.5), rel=0.1)
    assert verdict.num_pairs == 3
    lines = verdict_sentences(verdict, "val_loss")
    best, second = (each.arm.text for each in verdict.arms[:2])
    start = "Compared by optimizer: 3 arms, each tuned alone with 1 trial and judged by fresh"
    assert lines[0] == f"{start} seeds only."
    assert lines[1].startswith(f"{best} and {second} cannot be told apart: ")
    assert lines[1].endswith(" over 5 seeds.")
    assert lines[2].startswith(f"{best} is better than momentum: val_loss 9.")
    assert " % lower (" in lines[2]
    assert "fewer tokens to the same val_loss" in lines[2]
    assert lines[3] == "Intervals (95 %) and p values are corrected for all 3 pairs."
    assert headline(verdict) == f"{best} cannot be told apart from {second}"
    seen = verdict.as_json
    assert seen["by"] == "optimizer"
    assert [each["is_default"] for each in seen["arms"]].count(True) == 1
    assert seen["differences"][1]["verdict"] == "better"


def test_verdict_of_two_arms_is_one_test(tmp_path: Path) -> None:
    verdict = judged(tmp_path, Losses({"lion": 3.1, "adamw": 3.0}), TWO, "trials: 2")
    (difference,) = verdict.differences
    best, other = (each.best for each in verdict.arms)
    assert best is not None
    assert other is not None
    a, b = (np.array(each.values, dtype=float) for each in (best, other))
    test = scipy.stats.ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    unit = b.mean() / 100
    assert difference.p == pytest.approx(test.pvalue)
    assert difference.gain is not None
    assert difference.gain.low == pytest.approx(interval.low / unit)
    assert difference.gain.high == pytest.approx(interval.high / unit)
    assert headline(verdict) == "adamw is better than lion"
    assert len(verdict_sentences(verdict, "val_loss")) == 2, "one pair needs no correction"


def test_verdict_says_that_an_arm_diverges(tmp_path: Path) -> None:
    verdict = judged(tmp_path, Losses({"lion": math.nan, "adamw": 3.0}), TWO, "trials: 2")
    assert verdict_sentences(verdict, "val_loss")[1:] == [
        "No trial of lion was trained to the end."
    ]
    assert verdict.as_json["arms"][1]["trial"] is None
    assert headline(verdict) == "No arm but adamw was trained to the end"


@pytest.mark.parametrize(("arms", "top"), [(2, 1), (2, 2), (4, 1)])
def test_verdict_errs_as_often_as_stated(arms: int, top: int) -> None:
    """If all arms are equal, at most 1 % are called better, and 5 % probably better.

    The same as `verdict_of`: the best arm, chosen by its mean, against each other one.
    """
    random, runs, seeds = np.random.default_rng(10 * arms + top), 2000, 5
    verdicts: Counter[str] = Counter()
    for _ in range(runs):
        values = random.normal(size=(arms, top, seeds)) + random.normal(size=seeds)
        flat = [(arm, row) for arm in range(arms) for row in values[arm]]
        pairs = {
            (i, j): paired_p(list(flat[i][1] - flat[j][1]))
            for i, j in combinations(range(len(flat)), 2)
            if flat[i][0] != flat[j][0]
        }
        p_values = corrected(pairs)
        best_of_arm = [
            min((i for i in range(len(flat)) if flat[i][0] == arm), key=lambda i: flat[i][1].mean())
            for arm in range(arms)
        ]
        best = min(best_of_arm, key=lambda i: flat[i][1].mean())
        smallest = min(p_values[min(best, i), max(best, i)] for i in best_of_arm if i != best)
        verdicts["better"] += smallest < 0.01
        verdicts["probably"] += smallest < 0.05
    # three standard errors of 2000 runs
    assert verdicts["better"] <= 20 + 3 * math.sqrt(20)
    assert verdicts["probably"] <= 100 + 3 * math.sqrt(95)
    if arms == 2 and top == 1:
        assert verdicts["better"] >= 20 - 3 * math.sqrt(20), "not careful for nothing"
        assert verdicts["probably"] >= 100 - 3 * math.sqrt(95)


def test_p_values_as_text() -> None:
    assert [p_text(p) for p in (0.2123, 0.00123, 1e-9)] == ["p = 0.21", "p = 0.0012", "p < 0.0001"]
