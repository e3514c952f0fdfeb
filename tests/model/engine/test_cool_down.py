"""A branch of a trunk has the bits of the trial that was trained from update 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoints.store import CheckpointRef, checkpoint_path
from model.errors import CheckpointError
from model.spec.cool_down import last_shared_report, num_shared_updates
from model.spec.schedules import learning_rate
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec
from tests.model.engine.test_chain import assert_equal, of, state_of, train

Tokens = tuple[np.ndarray, np.ndarray]
TRUNK, BRANCH = 20, 11  # updates


def budgets(make_spec: MakeSpec, **rows: Any) -> tuple[TrialSpec, TrialSpec]:
    """A trunk and a branch that cools down over a fifth of their updates; reports every 4."""
    rows = {"schedule": "wsd", "warmup_steps": 3, "max_learning_rate": 0.01, **rows}
    trunk = make_spec(steps=TRUNK, reports=5, **rows)
    branch = make_spec(steps=BRANCH, **rows)
    return trunk, branch.model_copy(update={"report_tokens": trunk.report_tokens})


@pytest.mark.parametrize(
    ("rows"),
    [
        {"optimizer": "adamw", "ema_decay": 0.9, "dropout": 0.1, "label_smoothing": 0.1},
        {"optimizer": "muon", "ema_decay": 0.9},
        {"optimizer": "sgd", "max_learning_rate": 0.1, "cooldown_shape": "sqrt"},
    ],
    ids=lambda rows: rows["optimizer"],
)
def test_branch_equals_the_trial_from_update_0(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, rows: dict[str, Any]
) -> None:
    trunk, branch = budgets(make_spec, **rows)
    begin = last_shared_report(branch)
    assert begin == 8
    before = train(tokens, tmp_path, "trunk", trunk)
    alone = train(tokens, tmp_path, "alone", branch)
    source = CheckpointRef("trunk", begin)
    later = train(tokens, tmp_path, "branch", branch, source, after=begin)

    assert [report.step for report in later] == [BRANCH]  # nothing was trained twice
    assert of(later) == of(alone)[-1:]
    assert_equal(state_of(tmp_path, "branch", BRANCH), state_of(tmp_path, "alone", BRANCH))
    # its earlier reports are those of the trunk
    assert of(before)[:2] == of(alone)[:2]
    assert of(before)[-1] != of(alone)[-1]


def test_killed_branch_resumes_from_its_own_report(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """It may have made a report in its cool-down, or none yet."""
    trunk, branch = budgets(make_spec, cooldown_steps=6)
    begin = last_shared_report(branch)
    assert begin == 4
    train(tokens, tmp_path, "trunk", trunk, stop=begin)
    alone = train(tokens, tmp_path, "alone", branch)
    source = CheckpointRef("trunk", begin)
    first = train(tokens, tmp_path, "branch", branch, source, after=begin, stop=8)
    rest = train(tokens, tmp_path, "branch", branch, CheckpointRef("branch", 8), after=8)
    assert of([*first, *rest]) == of(alone)[1:]
    assert_equal(state_of(tmp_path, "branch", BRANCH), state_of(tmp_path, "alone", BRANCH))


def test_branch_without_the_state_of_its_trunk_trains_from_update_0(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    _, branch = budgets(make_spec)
    later = train(tokens, tmp_path, "branch", branch, CheckpointRef("trunk", 8), after=8)
    assert of(later) == of(train(tokens, tmp_path, "alone", branch))[-1:]


@pytest.mark.parametrize(
    "rows",
    [{"weight_decay": 0.3}, {"warmup_steps": 2}, {"schedule": "cosine"}, {"seed": 1}],
    ids=str,
)
def test_state_of_a_trial_that_differs_is_no_start(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, rows: dict[str, Any]
) -> None:
    trunk, _ = budgets(make_spec)
    _, other = budgets(make_spec, **rows)
    assert num_shared_updates(other, trunk) == num_shared_updates(trunk, other) == 0
    train(tokens, tmp_path, "trunk", trunk, stop=8)
    path = checkpoint_path(tmp_path, "trunk", 8)
    with pytest.raises(CheckpointError, match="belongs to another specification"):
        train(tokens, None, "other", other, path)


def test_state_in_the_cool_down_is_no_start(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """The trunk's own update 8 is one of constant rate, but the branch has begun to cool down."""
    trunk, branch = budgets(make_spec, cooldown_steps=4)
    train(tokens, tmp_path, "trunk", trunk, stop=8)
    with pytest.raises(CheckpointError, match="belongs to another specification"):
        train(tokens, None, "branch", branch, checkpoint_path(tmp_path, "trunk", 8))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.75])
@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_rates_are_equal_up_to_the_shared_updates_and_no_further(
    make_spec: MakeSpec, share: float, shape: str
) -> None:
    for steps in range(13, 40):
        rows = {"schedule": "wsd", "warmup_steps": 3, "cooldown_shape": shape}
        trunk, branch = (
            make_spec(steps=n, reports=1, cooldown_steps=round(share * n), **rows)
            for n in (40, steps)
        )
        branch = branch.model_copy(update={"report_tokens": trunk.report_tokens})
        shared = num_shared_updates(branch, trunk)
        rates = [_rates(spec, steps) for spec in (trunk, branch)]
        assert rates[0][:shared] == rates[1][:shared]
        if share and shared < steps:
            assert rates[0][shared] != rates[1][shared]


def _rates(spec: TrialSpec, steps: int) -> Sequence[float]:
    return [learning_rate(step, spec.hyperparameters) for step in range(1, steps + 1)]


def test_five_budgets_cost_a_quarter_more_than_the_longest(make_spec: MakeSpec) -> None:
    """Each is twice the one before; ten reports of the longest are the only states there are."""
    longest, *shorter = (
        make_spec(steps=n, schedule="wsd", warmup_steps=5) for n in (800, 400, 200, 100, 50)
    )
    update = {"report_tokens": math.ceil(longest.budget_tokens / 10)}
    cost = longest.budget_tokens
    for spec in shorter:
        branch = spec.model_copy(update=update)
        begin = last_shared_report(branch)
        assert begin in (0, *longest.model_copy(update=update).report_steps)
        cost += branch.budget_tokens - begin * branch.tokens_per_step
    assert cost <= 1.25 * longest.budget_tokens
