"""The law, for LoRA trials over one frozen base: bits do not depend on neighbours or slots."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints.checkpoint import read
from model.engine.engine import Engine
from model.engine.report import Status
from model.spec.architecture import adapter_shapes
from tests.conftest import MakeSpec, last_state
from tests.model.lora_starts import lora_spec, started
from tests.model.test_law import assert_same, train

Tokens = tuple[np.ndarray, np.ndarray]

# the second one with unaligned rows, a rank that fills no vector register, and biases
SHAPES: tuple[dict[str, Any], ...] = (
    {"n_layers": 2, "n_kv_heads": 1, "tied_embeddings": True, "scaled_head": False},
    {"d_model": 12, "n_heads": 2, "context_length": 7, "d_ff": 32, "biases": "all",
     "norm": "layernorm", "position": "learned", "activation": "gelu_tanh"},
)  # fmt: skip
RANKS = (4, 3)
OTHERS = ("muon", "momentum")  # optimizers, beside AdamW


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"), [(0, "float32"), (1, "float32"), (1, "bfloat16"), (1, "mixed_bfloat16")]
)
def test_trial_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, shape: int, dtype: str
) -> None:
    """Alone or in any slot, with refills, stops, divergence, all rows of LoRA, other optimizers."""
    model = SHAPES[shape]
    make = partial(
        lora_spec, make_spec, started(make_spec, tmp_path, model), model, RANKS[shape], steps=4
    )
    specs = [make(seed=i, optimizer=name) for i, name in enumerate(OTHERS)]
    specs += [
        make(lora_dropout=0.3, batch_size=2), make(lora_b_rate_factor=8.0), make(lora_alpha=64.0),
        make(lora_scaling="alpha/sqrt(rank)", dropout=0.1), make(ema_decay=0.9),
        make(optimizer="sgd", schedule="constant", learning_rate=100.0, weight_decay=10.0,
             grad_clip=0.0, warmup_steps=0, lora_alpha=1e4),
        make(lora_dropout=0.1, lora_b_rate_factor=4.0, optimizer="lion"),
    ]  # fmt: skip
    stop = {1: 1, 3: 2}
    options: dict[str, Any] = {"starts": tmp_path, "dtype": dtype}
    together = train(tokens, tmp_path, specs, slots=3, width=3, stop=stop, **options)
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        stopped = {0: stop[number]} if number in stop else None
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, stop=stopped, **options)
        assert_same(alone, outcome)
    assert together[-2][0][-1][0] is Status.DIVERGED
    assert together[0][0][-1][0] is Status.FINISHED


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_slot_does_not_matter_for_any_rank(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, rank: int
) -> None:
    model = SHAPES[1]
    start = started(make_spec, tmp_path, model)
    spec = lora_spec(make_spec, start, model, rank, "q_proj,down_proj", lora_dropout=0.1, steps=4)
    (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, starts=tmp_path)
    for outcome in train(tokens, tmp_path, [spec] * 3, slots=3, width=3, starts=tmp_path):
        assert_same(alone, outcome)


def test_stacks_of_other_ranks_and_full_trials_change_nothing(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """One engine, stacks of their own over one base; its weights are in memory once."""
    start = started(make_spec, tmp_path)
    make = partial(lora_spec, make_spec, start, steps=6)
    specs = [make(rank=2), make(rank=8), make(targets="attention"), make(rank=2, seed=1)]
    specs += [make_spec(init_from=start, steps=6), make_spec(steps=6)]
    together = train(tokens, tmp_path, specs, slots=6, width=1, starts=tmp_path)
    for spec, outcome in zip(specs, together, strict=True):
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, starts=tmp_path)
        assert_same(alone, outcome)
    engine = Engine(*tokens, slots=4, starts=tmp_path)
    for number, spec in enumerate(specs[:4]):
        engine.add_trial(str(number), spec)
    engine.step()
    bases = {id(active.stack.base) for active in engine._stacks}
    assert len(engine._stacks) == 4
    assert len(bases) == 1


@pytest.mark.parametrize("after", [1, 2])
def test_resume_equals_uninterrupted(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, after: int
) -> None:
    start = started(make_spec, tmp_path)
    make = partial(lora_spec, make_spec, start)
    spec = make(steps=9, lora_dropout=0.2, grad_clip=0.5, lora_b_rate_factor=2.0)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    options: dict[str, Any] = {"starts": tmp_path}
    (undisturbed,) = train(tokens, whole, [spec], slots=1, width=1, **options)
    (first,) = train(tokens, begun, [spec], slots=1, width=1, stop={0: after}, **options)
    resume = {1: last_state(begun)}
    _, rest = train(
        tokens, tmp_path / "r", [make(seed=9), spec], slots=2, width=3, resume=resume, **options
    )
    assert_same(undisturbed, (first[0] + rest[0], rest[1]))


def test_engine_with_compiled_ticks_runs_lora_operation_by_operation(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    spec = lora_spec(make_spec, started(make_spec, tmp_path), steps=4)
    options: dict[str, Any] = {"slots": 1, "width": 1, "starts": tmp_path}
    (eager,) = train(tokens, tmp_path, [spec], **options)
    (compiled,) = train(tokens, tmp_path, [spec], is_compiled=True, **options)
    assert_same(eager, compiled)


def test_checkpoint_holds_adapters_only(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    spec = lora_spec(make_spec, started(make_spec, tmp_path), targets="attention", steps=3)
    train(tokens, tmp_path, [spec], slots=1, width=1, starts=tmp_path)
    tensors, _ = read(last_state(tmp_path))
    names = adapter_shapes(spec.architecture)
    assert tensors.keys() == {f"{kind}.{name}" for kind in ("weights", "m", "v") for name in names}
    assert all(tensors[f"weights.{name}"].any() for name in names)  # B has left zero


def test_base_is_proven_by_its_digest(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    start, other = started(make_spec, tmp_path), started(make_spec, tmp_path, seed=5)
    (path, wrong) = (tmp_path / f"{each.sha256}.safetensors" for each in (start, other))
    path.write_bytes(wrong.read_bytes())
    for message in ("holds other weights than the trial started from", "missing or damaged"):
        engine = Engine(*tokens, starts=tmp_path)
        engine.add_trial("x", lora_spec(make_spec, start))
        engine.step()
        assert message in str(engine.failures["x"])
        path.unlink(missing_ok=True)


def test_base_is_mapped_and_never_written(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """Its pages are those of the file, which all processes share."""
    start = started(make_spec, tmp_path)
    file = tmp_path / f"{start.sha256}.safetensors"
    before = file.read_bytes()
    engine = Engine(*tokens, starts=tmp_path)
    engine.add_trial("x", lora_spec(make_spec, start, steps=3))
    engine.step()
    assert engine._bases._last is not None
    places = {w.untyped_storage().data_ptr() for w in engine._bases._last.weights.values()}
    maps = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if line.endswith(str(file))
    ]
    assert all(any(low <= place < high for low, high in maps) for place in places)
    assert not any(w.requires_grad for w in engine._bases._last.weights.values())
    assert file.read_bytes() == before


def test_start_of_lora_is_the_base_itself(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """B is zero: before the first update the loss is that of the base."""
    start = started(make_spec, tmp_path)
    rates: dict[str, Any] = {
        "schedule": "constant",
        "learning_rate": 1e-30,
        "steps": 3,
        "weight_decay": 0.0,
    }
    lora = train(tokens, tmp_path, [lora_spec(make_spec, start, **rates)], slots=1, width=1,
                 starts=tmp_path)  # fmt: skip
    full = train(tokens, tmp_path, [make_spec(init_from=start, **rates)], slots=1, width=1,
                 starts=tmp_path)  # fmt: skip
    assert lora[0][0][-1][3] == pytest.approx(full[0][0][-1][3], rel=1e-6)
    for name, tensor in (lora[0][1] or {}).items():
        if name.startswith("weights.") and "lora_A" in name:
            assert 0.9 < tensor.abs().max() * tensor.shape[1] ** 0.5 <= 1
            assert abs(float(tensor.mean())) < 4 * float(tensor.std()) / tensor.numel() ** 0.5
    assert torch.isfinite(torch.tensor(lora[0][0][-1][3]))
