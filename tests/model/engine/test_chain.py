"""Trials that continue others are functions of their specifications too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints import checkpoint
from model.checkpoints.store import CheckpointRef, checkpoint_path
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from model.stack.stack import Stack
from tests.conftest import MakeSpec
from tests.model.engine.test_engine_faults import numbers

Tokens = tuple[np.ndarray, np.ndarray]


def continued(parent: TrialSpec, step: int, seed: int = 0, **rows: Any) -> TrialSpec:
    """Return a trial that continues another one."""
    fields = parent.model_dump(exclude={"continues"})
    fields["hyperparameters"] |= rows
    return TrialSpec(**fields | {"seed": seed}, continues=Continues(spec=parent, step=step))


@pytest.fixture
def chain(make_spec: MakeSpec) -> tuple[TrialSpec, TrialSpec, TrialSpec]:
    """A root and two copies with other rates, regularisers and seeds; states with all parts."""
    root = make_spec(
        steps=12, reports=6, dropout=0.1, ema_decay=0.9, target_sparsity=0.5,
        prune_interval_steps=2, schedule="plateau", plateau_patience=0,
    )  # fmt: skip
    child = continued(root, 4, seed=1, max_learning_rate=0.02, weight_decay=0.3, beta1=0.8)
    return root, child, continued(child, 8, seed=2, dropout=0.3, max_learning_rate=0.005)


def train(
    tokens: Tokens,
    folder: Path | None,
    name: str,
    spec: TrialSpec,
    resume: CheckpointRef | Path | None = None,
    after: int = 0,
    stop: int = 99,
) -> list[Report]:
    """Return the reports of one trial, up to an update."""
    engine = Engine(*tokens, checkpoint_dir=folder)
    engine.add_trial(name, spec, resume=resume, after=after)
    reports: list[Report] = []
    while engine.num_pending:
        reports += engine.step()
        if reports and reports[-1].step >= stop:
            engine.stop(name)
    for error in engine.failures.values():
        raise error
    return reports


def of(reports: list[Report]) -> list[Any]:
    """Return the numbers of one trial's reports, without its id."""
    (found,) = numbers(reports).values()
    return found


def state_of(folder: Path, name: str, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint_path(folder, name, step))[0]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def by_hand(tokens: Tokens, folder: Path, chain: tuple[TrialSpec, ...]) -> list[Report]:
    """Train each link up to the update at which the next one continues its checkpoint."""
    before: Path | None = None
    for number, spec in enumerate(chain[:-1]):
        follower = chain[number + 1].continues
        assert follower is not None
        train(tokens, folder, f"h{number}", spec, before, stop=follower.step)
        before = checkpoint_path(folder, f"h{number}", follower.step)
    return train(tokens, folder, f"h{len(chain) - 1}", chain[-1], before)


@pytest.mark.slow
def test_chain_equals_its_links_by_hand(
    tmp_path: Path, tokens: Tokens, chain: tuple[TrialSpec, ...]
) -> None:
    """Reports of the last link only, from its own first update on, and the same final state."""
    expected = by_hand(tokens, tmp_path, chain)
    assert [r.step for r in expected] == [10, 12]
    reports = train(tokens, tmp_path, "whole", chain[-1])
    assert of(reports) == of(expected)
    assert reports[-1].status is Status.FINISHED
    assert_equal(state_of(tmp_path, "whole", 12), state_of(tmp_path, "h2", 12))
    alone = train(tokens, None, "x", chain[0])
    assert of(alone)[4:] != of(reports), "the links matter"


@pytest.mark.slow
def test_chain_trains_like_any_other_loop(tokens: Tokens, make_spec: MakeSpec) -> None:
    """A child with the hyperparameters and the seed of its parent equals its parent."""
    root = make_spec(steps=12, reports=6, dropout=0.1)
    undisturbed = train(tokens, None, "x", root)
    assert of(train(tokens, None, "x", continued(root, 4))) == of(undisturbed)[2:]


@pytest.mark.slow
@pytest.mark.parametrize("have", [2, 4, 6, 8])
def test_chain_continues_from_existing_checkpoints(
    tmp_path: Path,
    tokens: Tokens,
    chain: tuple[TrialSpec, ...],
    have: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From any checkpoint of the chain, nothing before it is trained again."""
    expected = by_hand(tokens, tmp_path, chain)
    source = CheckpointRef("h0" if have <= 4 else "h1", have)
    ticks: list[int] = []
    run = Stack.run

    def counting(stack: Stack, plan: Any) -> Any:
        ticks.append(len(plan.due))
        return run(stack, plan)

    monkeypatch.setattr(Stack, "run", counting)
    assert of(train(tokens, tmp_path, "x", chain[-1], source)) == of(expected)
    assert sum(ticks) == 2 * (12 - have)


@pytest.mark.slow
def test_chain_does_not_follow_a_link_past_its_end(
    tmp_path: Path, tokens: Tokens, chain: tuple[TrialSpec, ...]
) -> None:
    """The parent trained on; its later checkpoints do not belong to the chain."""
    root, child, _ = chain
    train(tokens, tmp_path, "root", root)
    expected = by_hand(tokens, tmp_path, (root, child))
    assert of(train(tokens, tmp_path, "x", child, CheckpointRef("root", 99))) == of(expected)
    with pytest.raises(checkpoint.CheckpointError, match="another specification"):
        train(tokens, tmp_path, "x", child, checkpoint_path(tmp_path, "root", 6))


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 3])
def test_chain_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, chain: tuple[TrialSpec, ...], width: int
) -> None:
    """All links at once in one stack, and another trial."""
    specs = [*chain, make_spec(seed=9, steps=7)]
    engine = Engine(*tokens, slots=width, width=width, checkpoint_dir=tmp_path)
    together = numbers(list(engine.run(specs)))
    for number, spec in enumerate(specs):
        shutil.rmtree(tmp_path / "alone", ignore_errors=True)
        alone = train(tokens, tmp_path / "alone", "x", spec)
        assert together[str(number)] == of(alone)
        last = alone[-1].step
        assert_equal(state_of(tmp_path, str(number), last), state_of(tmp_path / "alone", "x", last))
