"""LoRA in specifications: names of matrices, shapes, hashes, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from model.spec.architecture import Architecture, adapter_shapes, parameter_shapes, trained_shapes
from model.spec.hyperparameters import LORA_ROWS
from model.spec.lora import canonical_targets
from model.spec.trial import InitFrom, TrialSpec
from tests.conftest import MakeSpec

START = InitFrom(sha256="0" * 64)
SMALL: dict[str, Any] = {
    "vocab_size": 64, "d_model": 16, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "d_ff": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("all", "all"),
        ("v_proj, q_proj", "q_proj,v_proj"),
        ("o_proj,v_proj,k_proj,q_proj", "attention"),
        ("down_proj,gate_proj,up_proj", "mlp"),
        ("gate_proj,up_proj,down_proj,q_proj,k_proj,v_proj,o_proj", "all"),
    ],
)
def test_one_set_of_targets_has_one_spelling(text: str, canonical: str) -> None:
    assert canonical_targets(text) == canonical


@pytest.mark.parametrize("text", ["", "q_proj,q_proj", "query", "all,q_proj"])
def test_wrong_targets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be all, attention, mlp, or different ones of"):
        canonical_targets(text)


def test_adapters_have_the_shapes_of_their_matrices() -> None:
    a = Architecture(**SMALL, lora_rank=3, lora_targets="k_proj,down_proj")
    assert adapter_shapes(a) == {
        f"layers.{i}.{name}.lora_{side}.weight": shape
        for i in (0, 1)
        for name, side, shape in (
            ("attn.k_proj", "A", (3, 16)), ("attn.k_proj", "B", (8, 3)),
            ("ffn.w2", "A", (3, 32)), ("ffn.w2", "B", (16, 3)),
        )
    }  # fmt: skip
    assert trained_shapes(a) == adapter_shapes(a)
    assert a.num_trained == 2 * (3 * 16 + 8 * 3 + 3 * 32 + 16 * 3)
    full = Architecture(**SMALL)
    assert parameter_shapes(a) == parameter_shapes(full) == trained_shapes(full)
    assert not adapter_shapes(full)
    # W·x and its gradient by x: four of six operations, beside the products of the adapters
    assert a.flops_per_token < full.flops_per_token


def test_up_projection_of_a_layer_without_a_gate_is_its_first_matrix() -> None:
    a = Architecture(**SMALL, activation="gelu_tanh", lora_rank=2, lora_targets="up_proj")
    assert next(iter(adapter_shapes(a))) == "layers.0.ffn.w1.lora_A.weight"
    with pytest.raises(ValidationError, match="has no gate"):
        Architecture(**SMALL, activation="relu", lora_rank=2, lora_targets="gate_proj")


def test_without_lora_no_json_names_it(make_spec: MakeSpec) -> None:
    """So that the hash of a specification that is older than LoRA stays."""
    spec = make_spec()
    assert "lora" not in spec.model_dump_json()
    assert not any(name.startswith("lora") for name in spec.rows)
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.hyperparameters.lora_alpha == 16.0


def test_lora_changes_the_hash_by_each_of_its_fields(make_spec: MakeSpec) -> None:
    def hashed(rank: int = 4, targets: str = "all", **rows: Any) -> str:
        model = {"lora_rank": rank, "lora_targets": targets}
        return make_spec(model=model, init_from=START, **rows).hash

    hashes = {
        hashed(), hashed(rank=8), hashed(targets="attention"), hashed(lora_alpha=8.0),
        hashed(lora_scaling="alpha/sqrt(rank)"), hashed(lora_dropout=0.1),
        hashed(lora_b_rate_factor=4.0),
    }  # fmt: skip
    assert len(hashes) == 3 + len(LORA_ROWS)


def test_scale_follows_from_alpha_and_rank(make_spec: MakeSpec) -> None:
    model, rows = {"lora_rank": 8}, {"lora_alpha": 32.0, "init_from": START}
    assert make_spec(model=model, **rows).lora_scale == 4
    root = make_spec(model=model, lora_scaling="alpha/sqrt(rank)", **rows)
    assert root.lora_scale == 32 / math.sqrt(8)
    assert make_spec().lora_scale == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": None}, "LoRA adapts pretrained weights; give init_from"),
        ({"init_from": InitFrom(sha256="0" * 64, optimizer_steps=3)}, "leave optimizer_state out"),
        ({"target_sparsity": 0.5}, "cannot be pruned"),
        ({"model": {"lora_targets": "attention"}}, "lora_targets has no effect without lora_rank"),
        ({"model": {}, "lora_alpha": 3.0}, "lora_alpha has no effect without LoRA"),
    ],
)
def test_what_lora_cannot_do_is_refused(
    make_spec: MakeSpec, changes: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"model": {"lora_rank": 4}, "init_from": START} | changes
    with pytest.raises(ValidationError, match=message):
        make_spec(**arguments)
