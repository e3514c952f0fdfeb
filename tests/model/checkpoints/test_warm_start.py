"""Warm starts: the tensors that a trial takes from a checkpoint, and the law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints import warm_start
from model.checkpoints.module import save_checkpoint
from model.checkpoints.warm_start import WarmStartSource
from model.engine.engine import Engine
from model.errors import CheckpointError
from model.optimizers.registry import OPTIMIZERS
from model.spec.architecture import parameter_shapes
from model.spec.trial import InitFrom, TrialSpec
from tests.conftest import MakeSpec, last_state
from tests.model.engine.test_engine import (
    all_validation,
    plain_model,
    plain_optimizer,
    plain_training,
    row_of,
)
from tests.model.test_law import SHAPES, assert_same, train

Tokens = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("name", ["ln_final.weight", "layers.0.ffn.w1.weight"])
def test_source_refuses_tensors_that_do_not_fit(
    make_spec: MakeSpec, name: str, state: bool
) -> None:
    """As in a file that was edited: a tensor is missing or has another shape."""
    spec = make_spec()
    tensors = {
        f"{kind}.{key}": torch.zeros(shape)
        for kind in ("weights", "m", "v")
        for key, shape in parameter_shapes(spec.architecture).items()
    }
    WarmStartSource(spec, 1, 3.0, tensors).tensors_for(optimizer_state=state)
    kind = "v" if state else "weights"
    other = {**tensors, f"{kind}.{name}": torch.zeros(3, 5)}
    missing = {key: tensor for key, tensor in tensors.items() if key != f"{kind}.{name}"}
    for damaged in (other, missing):
        with pytest.raises(CheckpointError, match=rf"{kind} of {name} .* by the specification"):
            WarmStartSource(spec, 1, 3.0, damaged).tensors_for(optimizer_state=state)


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    return tmp_path / "starts"


def source_of(
    tokens: Tokens, spec: TrialSpec, folder: Path, starts: Path | None = None
) -> WarmStartSource:
    """Return the last checkpoint of a trial."""
    train(tokens, folder, [spec], slots=1, width=1, starts=starts)
    return WarmStartSource.read(last_state(folder))


def warm(
    spec: TrialSpec, source: WarmStartSource, starts: Path, *, state: bool = False
) -> TrialSpec:
    """Return the trial, started from a source."""
    init_from, tensors = source.tensors_for(optimizer_state=state)
    warm_start.write_start(starts, init_from, tensors)
    return spec.model_copy(update={"init_from": init_from})


# the law -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_warm_start_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, starts: Path, shape: Any
) -> None:
    """Warm and cold trials side by side and one after the other: each as if it were alone."""
    source = source_of(tokens, make_spec(model=shape, seed=7, ema_decay=0.5), tmp_path)
    cold = [make_spec(model=shape, seed=i, steps=5, dropout=0.1) for i in range(2)]
    averaged = make_spec(model=shape, seed=2, steps=7, ema_decay=0.9, batch_size=6)
    specs = [
        cold[0],
        warm(cold[0], source, starts),
        warm(averaged, source, starts, state=True),
        cold[1],
        warm(cold[1], source, starts, state=True),
        averaged,
    ]
    alone = [train(tokens, tmp_path, [s], slots=1, width=1, starts=starts)[0] for s in specs]
    for width in (2, 3, 6):
        together = train(tokens, tmp_path, specs, slots=width, width=width, starts=starts)
        for expected, outcome in zip(alone, together, strict=True):
            assert_same(expected, outcome)
    assert alone[0][0] != alone[1][0] != alone[4][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "state"), [("adamw", False), *((name, True) for name in OPTIMIZERS)]
)
def test_warm_start_resumes_as_if_uninterrupted(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, starts: Path, optimizer: str, state: bool
) -> None:
    """Its checkpoints are complete: the start itself is not needed again."""
    source = source_of(tokens, make_spec(seed=7, steps=4, optimizer=optimizer), tmp_path)
    plain = make_spec(optimizer=optimizer, steps=8, reports=4, ema_decay=0.5)
    spec = warm(plain, source, starts, state=state)
    (undisturbed,) = train(tokens, tmp_path, [spec], slots=1, width=1, starts=starts)
    begun = tmp_path / "begun"
    (first,) = train(tokens, begun, [spec], slots=1, width=1, stop={0: 2}, starts=starts)
    resume = {1: last_state(begun)}
    other = make_spec(seed=9, steps=7)
    _, rest = train(tokens, tmp_path, [other, spec], slots=2, width=3, resume=resume)
    assert_same(undisturbed, (first[0] + rest[0], rest[1]))


# tensors of a start ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("rows", [{}, {"beta2": 0.9, "eps": 1e-4}, {"ema_decay": 0.7}])
def test_warm_start_equals_torch(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    starts: Path,
    rows: dict[str, float],
    state: bool,
) -> None:
    """A model trained by torch, with a new schedule and hyperparameters, and a new or old state.

    Few updates before: the corrections of the moments are then far from 1.
    """
    first = all_validation(make_spec(seed=7, steps=3, weight_decay=0.1), tokens)
    second = all_validation(
        make_spec(seed=1, steps=10, reports=10, warmup_steps=3, max_learning_rate=3e-3, **rows),
        tokens,
    )
    model = plain_model(first)
    before = plain_optimizer(first, model)
    plain_training(first, tokens, model, before)
    optimizer = plain_optimizer(second, model)
    if state:
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": before.state_dict()["state"], "param_groups": groups})
    expected = plain_training(second, tokens, model, optimizer)

    spec = warm(second, source_of(tokens, first, tmp_path), starts, state=state)
    reports = list(Engine(*tokens, starts=starts).run([spec]))
    assert [r.step for r in reports] == list(range(1, 11))  # the schedule counts from 0
    np.testing.assert_allclose([row_of(r) for r in reports], expected, rtol=2e-4)


def test_take_is_the_model_that_was_evaluated(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """With averaged weights the start is their mean; moments belong to the weights themselves."""
    source = source_of(tokens, make_spec(ema_decay=0.9), tmp_path)
    name = "lm_head.weight"
    _, weights = source.tensors_for(optimizer_state=False)
    _, everything = source.tensors_for(optimizer_state=True)
    assert torch.equal(weights[f"weights.{name}"], source.tensors[f"mean.{name}"])
    assert torch.equal(everything[f"weights.{name}"], source.tensors[f"weights.{name}"])
    assert torch.equal(everything[f"v.{name}"], source.tensors[f"v.{name}"])
    assert {each.partition(".")[0] for each in weights} == {"weights"}
    assert {each.partition(".")[0] for each in everything} == {"weights", "m", "v"}


def test_take_counts_the_updates_of_the_moments(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, starts: Path
) -> None:
    first = source_of(tokens, make_spec(steps=5), tmp_path)
    spec = warm(make_spec(steps=7, seed=1), first, starts, state=True)
    second = source_of(tokens, spec, tmp_path, starts)
    assert spec.init_from is not None
    assert spec.init_from.optimizer_steps == 5
    assert second.tensors_for(optimizer_state=True)[0].optimizer_steps == 5 + 7
    assert second.tensors_for(optimizer_state=False)[0].optimizer_steps == 0


@pytest.mark.slow
def test_identity_is_what_a_trial_starts_with(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, starts: Path
) -> None:
    """Not the file of the checkpoint; the optimizer's state makes another trial."""
    source = source_of(tokens, make_spec(seed=7), tmp_path)
    again = source_of(tokens, make_spec(seed=7, reports=2), tmp_path / "again")
    other = source_of(tokens, make_spec(seed=8), tmp_path / "other")
    spec = make_spec()
    hashes = [warm(spec, each, starts).hash for each in (source, again, other)]
    assert hashes[0] == hashes[1]
    assert len({spec.hash, *hashes, warm(spec, source, starts, state=True).hash}) == 4


# errors ------------------------------------------------------------------------------------


def test_source_must_say_what_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = torch.nn.Linear(2, 2)
    save_checkpoint(model, torch.optim.SGD(model.parameters(), 0.1), 3, path)
    with pytest.raises(CheckpointError, match="does not contain a trial specification"):
        WarmStartSource.read(path)


def test_first_misfit_names_the_first_parameter(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    _, tensors = source_of(tokens, make_spec(), tmp_path).tensors_for(optimizer_state=False)

    def misfit(**model: Any) -> Any:
        expected = parameter_shapes(make_spec(model=model).architecture)
        return warm_start.first_shape_mismatch(expected, tensors)

    assert misfit(context_length=4, position="alibi", n_heads=4) is None
    assert misfit(d_ff=64) == ("layers.0.ffn.w1.weight", (64, 16), (32, 16))
    assert misfit(n_layers=2) == ("layers.1.attn.q_proj.weight", (16, 16), None)
    assert misfit(activation="gelu") == ("layers.0.ffn.w3.weight", None, (32, 16))


def test_engine_refuses_a_start_that_is_missing_or_other(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, starts: Path
) -> None:
    source = source_of(tokens, make_spec(seed=7), tmp_path)
    spec = warm(make_spec(), source, starts)
    init_from = spec.init_from
    assert init_from is not None
    path = warm_start.start_path(starts, init_from)

    def refusal(spec: TrialSpec = spec, folder: Path | None = starts) -> str:
        with pytest.raises(CheckpointError) as caught:
            list(Engine(*tokens, starts=folder).run([spec]))
        return str(caught.value)

    assert "pass the folder of the starts to the engine" in refusal(folder=None)
    wide = make_spec(model={"d_ff": 64}).model_copy(update={"init_from": init_from})
    assert (
        "w1.weight has the shape (32, 16) in the start and has the shape (64, 16) in the trial"
        in refusal(wide)
    )
    path.rename(tmp_path / "moved")
    assert "cannot read the checkpoint" in refusal()
    _, others = source_of(tokens, make_spec(seed=8), tmp_path).tensors_for(optimizer_state=False)
    warm_start.write_start(starts, InitFrom(sha256=init_from.sha256), others)
    assert "holds other weights than the trial started from" in refusal()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert "damaged" in refusal()
