"""Objectives: signs and ranks."""

from __future__ import annotations

import math

import pytest

from tuner.space.objective import MODES, Objective, sign_of


@pytest.mark.parametrize("metric", MODES)
def test_objective_rank_is_smaller_for_better_values(metric: str) -> None:
    objective = Objective.model_validate({"metric": metric})
    better, worse = (1.0, 2.0) if objective.mode == "min" else (2.0, 1.0)
    assert objective.rank(better) < objective.rank(worse)
    assert objective.sign == sign_of(metric)
    assert objective.rank(objective.rank(better)) == better


@pytest.mark.parametrize("metric", ["val_loss", "bleu"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_objective_rank_is_infinite_for_values_that_are_not_finite(
    metric: str, value: float
) -> None:
    assert Objective.model_validate({"metric": metric}).rank(value) == math.inf


def test_sign_of_an_unknown_metric_is_one() -> None:
    assert sign_of("unknown") == 1
