"""The multipliers of a proxy against the published rules, written out in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from model.network.transformer import initial_weight
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.multipliers import (
    PLAIN,
    branch_multiplier,
    logit_multiplier,
    multipliers,
    query_multiplier,
)
from model.spec.rules import trained
from model.spec.target import SIZES_OF_TARGET, Target
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec

TARGET = {"d_model": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 4, "d_ff": 192}
PROXY = {"d_model": 16, "n_layers": 2, "n_heads": 1, "n_kv_heads": 1, "d_ff": 64}
V = 50


def proxy(target: dict[str, Any] | None = None, **sizes: Any) -> Architecture:
    """A quarter of the width and half of the depth, but a third of d_ff."""
    goal = Target(**{**TARGET, **(target or {})})
    return Architecture(vocab_size=V, context_length=8, target=goal, **{**PROXY, **sizes})


# std of the initial weights, and the factors of α, λ, ε and of the α of Muon
TABLE: dict[str, tuple[float | None, float, float, float, float]] = {
    "layers.1.attn.q_proj": (math.sqrt(2 / 128) * 2, 4, 1 / 4, 8, 2),
    "layers.0.attn.output_proj": (math.sqrt(2 / 128) * 2, 4, 1 / 4, 8, 2),
    "layers.0.ffn.w1": (math.sqrt(2 / 256) * 2, 4, 1 / 4, 6, 2),
    "layers.1.ffn.w2": (math.sqrt(2 / 256) * math.sqrt(3), 3, 1 / 3, 8, 1.5),
    "layers.0.ffn.w3": (math.sqrt(2 / 256) * 2, 4, 1 / 4, 6, 2),
    "lm_head": (math.sqrt(2 / (64 + V)), 1, 1, 4, 1),
    "token_embeddings": (None, 1, 1, 4, 1),
    "layers.1.ln1": (None, 1, 1, 8, 1),
    "ln_final": (None, 1, 1, 4, 1),
}


@pytest.mark.parametrize("name", TABLE)
def test_multipliers_are_those_of_the_table(name: str) -> None:
    found, (std, rate, decay, eps, muon) = multipliers(proxy())[f"{name}.weight"], TABLE[name]
    assert found.initial_std == pytest.approx(std) if std else found.initial_std is None
    assert (found.rate, found.decay, found.eps) == pytest.approx((rate, decay, eps))
    assert found.rate * found.muon == pytest.approx(muon)


def test_multipliers_of_the_forward_pass() -> None:
    a = proxy()
    assert branch_multiplier(a, a.decoder) == 2
    assert logit_multiplier(a) == 4
    assert query_multiplier(a) == 1, "heads as wide as the target's"
    narrow = proxy(n_heads=4, n_kv_heads=4)
    assert query_multiplier(narrow) == 2, "scores q·k/√4·2 = √16/4·q·k"


def test_multipliers_of_further_tensors() -> None:
    heads = proxy(qk_norm=True, position="relative")
    found = multipliers(heads)
    assert found["layers.0.attn.q_norm.weight"].eps == 2, "the depth alone: heads keep their width"
    assert found["relative_bias.weight"].eps == 4, "a quarter of the heads"
    assert found["relative_bias.weight"].initial_std == pytest.approx(math.sqrt(2 / (32 + 4)))
    narrow = multipliers(proxy(qk_norm=True, n_heads=4, n_kv_heads=4))
    assert narrow["layers.0.attn.k_norm.weight"].eps == 8


def test_depth_is_that_of_the_tower() -> None:
    target = {"n_encoder_layers": 8}
    a = proxy(target, n_encoder_layers=2, source_length=8)
    assert branch_multiplier(a, a.encoder) == 4
    assert branch_multiplier(a, a.decoder) == 2
    found = multipliers(a)
    assert found["encoder.layers.1.attn.q_proj.weight"].eps == 16
    assert found["layers.1.cross.q_proj.weight"].eps == 8
    assert found["encoder.ln_final.weight"].eps == 4


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_product_of_rate_and_decay_follows_the_exponent(exponent: float) -> None:
    """What no coordinate shows: α·λ of a hidden matrix is multiplied by m^(e−1)."""
    found = multipliers(proxy({"decay_exponent": exponent}))
    for name, m in (("layers.0.attn.k_proj", 1 / 4), ("layers.0.ffn.w2", 1 / 3), ("lm_head", 1)):
        each = found[f"{name}.weight"]
        assert each.rate * each.decay == pytest.approx(m ** (exponent - 1))


@pytest.mark.parametrize("name", ["attn.v_proj", "ffn.w1", "ffn.w2"])
def test_steps_of_both_optimizers_obey_the_spectral_condition(name: str) -> None:
    """‖ΔW‖₂ ∝ √(fan_out/fan_in); AdamW's is a matrix of ones, Muon's 0.2·√max·orthogonal."""
    norms = []
    for a in (proxy(), proxy().target_architecture):
        each = multipliers(a).get(f"layers.0.{name}.weight", PLAIN)
        o, i = parameter_shapes(a)[f"layers.0.{name}.weight"]
        steps = each.rate * math.sqrt(o * i), each.rate * each.muon * 0.2 * math.sqrt(max(o, i))
        norms.append([step / math.sqrt(o / i) for step in steps])
    assert norms[0] == pytest.approx(norms[1])


def test_model_of_its_targets_shape_has_multipliers_of_one() -> None:
    a = proxy(**TARGET)
    for name, found in multipliers(a).items():
        assert (found.rate, found.decay, found.eps, found.muon) == (1, 1, 1, 1), name
        shape = parameter_shapes(a)[name]
        if found.initial_std is not None:
            assert found.initial_std == math.sqrt(2 / sum(shape)), name
        plain, same = (initial_weight(3, name, shape, std=s) for s in (None, found.initial_std))
        assert torch.equal(plain, same)
    assert branch_multiplier(a, a.decoder) == logit_multiplier(a) == query_multiplier(a) == 1


def test_model_without_a_target_has_no_multipliers() -> None:
    a = Architecture(vocab_size=V, **PROXY)
    assert multipliers(a) == {}
    assert branch_multiplier(a, a.decoder) == logit_multiplier(a) == query_multiplier(a) == 1
    assert "target" not in a.model_dump()


# targets and specifications -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sizes", "message"),
    [
        ({"n_heads": 3, "n_kv_heads": 3}, {}, "the target is no possible model"),
        ({"n_encoder_layers": 2}, {}, "must both have an encoder, or none"),
        ({}, {"norm_placement": "post"}, "post does not transfer over the depth"),
    ],
)
def test_impossible_target_is_refused(
    target: dict[str, Any], sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        proxy(target, **sizes)


def spec_of(make_spec: MakeSpec, target: dict[str, Any] | None = None, **rows: Any) -> TrialSpec:
    goal = Target(**{**TARGET, **(target or {})})
    return make_spec(model={**PROXY, "target": goal}, **rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"optimizer": "lion"}, "optimizer lion does not transfer from a proxy to its target; it "
         "must be adamw or muon"),
        ({"l1_penalty": 0.1}, "λ₁ 0.1 does not transfer"),
        ({"grad_clip_value": 0.1}, "τ_value 0.1 does not transfer"),
    ],
)  # fmt: skip
def test_rows_without_multipliers_are_refused(
    make_spec: MakeSpec, rows: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(make_spec, **rows)
    make_spec(model=PROXY, **rows)


def test_specification_has_its_target_in_its_hash(make_spec: MakeSpec) -> None:
    plain, spec = make_spec(model=PROXY), spec_of(make_spec)
    hashes = {plain.hash, spec.hash}
    for name in Target.model_fields:
        values = {"batch_rule": "sqrt", "tokens_rule": "bjorck", "n_kv_heads": 2, "n_heads": 8}
        value = values.get(name, {**TARGET, "decay_exponent": 1, "batch": 1, "tokens": 1}.get(name))
        if isinstance(value, int) and name not in values:
            value = value / 2 if name in ("batch", "tokens", "decay_exponent") else value * 2
        if name != "n_encoder_layers":
            hashes.add(spec_of(make_spec, {name: value}).hash)
    assert len(hashes) == 1 + len(Target.model_fields)
    assert TrialSpec.model_validate_json(spec.model_dump_json()) == spec


def test_values_are_those_of_the_target(make_spec: MakeSpec) -> None:
    spec = spec_of(make_spec, {"batch": 0.25}, batch_size=4, max_learning_rate=0.02)
    sizes = {name: spec.value_of(name) for name in SIZES_OF_TARGET}
    assert sizes == {**TARGET, "n_encoder_layers": 0}
    assert (spec.value_of("batch_size"), spec.value_of("max_learning_rate")) == (16, 0.02)
    assert spec.value_of("context_length") == 8
    plain = make_spec(model=PROXY)
    assert (plain.value_of("d_model"), plain.value_of("batch_size")) == (16, 4)


# rules --------------------------------------------------------------------------------------------


def test_batch_rule_keeps_the_noise_of_adam(make_spec: MakeSpec) -> None:
    """Malladi et al. 2022, definition 5, for a quarter of the batch."""
    rows = {"max_learning_rate": 0.04, "eps": 1e-6, "beta1": 0.9, "beta2": 0.96}
    h = spec_of(make_spec, {"batch": 0.25, "batch_rule": "sqrt"}, **rows).trained_hyperparameters
    assert (h.max_learning_rate, h.eps) == pytest.approx((0.02, 2e-6))
    assert (h.beta1, h.beta2) == pytest.approx((0.975, 0.99))
    assert (h.min_learning_rate, h.weight_decay) == pytest.approx((0.002, 0.1))


def test_tokens_rules(make_spec: MakeSpec) -> None:
    goal = {"tokens": 1 / 16}
    bjorck = spec_of(make_spec, {**goal, "tokens_rule": "bjorck"}).trained_hyperparameters
    assert bjorck.max_learning_rate == pytest.approx(0.01 * 16**0.32)
    assert bjorck.weight_decay == 0.1
    both = {**goal, "tokens_rule": "timescale", "batch": 0.25, "batch_rule": "sqrt"}
    spec = spec_of(make_spec, both, embedding_decay=0.2)
    h = spec.trained_hyperparameters
    for decay, own in ((h.weight_decay, 0.1), (h.embedding_decay, 0.2)):
        # α·λ·tokens/B of the proxy and of the target
        assert h.max_learning_rate * decay * (1 / 16) / 0.25 == pytest.approx(0.01 * own)


def test_without_rules_nothing_is_translated(make_spec: MakeSpec) -> None:
    for spec in (make_spec(), spec_of(make_spec, {"tokens": 0.1, "batch": 0.5})):
        assert trained(spec.hyperparameters, spec.architecture.target) is spec.hyperparameters
