"""The shape of a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.network.transformer import TransformerLM
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.choices import default_d_ff
from model.spec.parameter_names import is_decayed
from tests.model.architectures import mixes

SMALL: dict[str, Any] = {"vocab_size": 300, "context_length": 8, "d_model": 16, "n_heads": 2}


@given(d_model=st.integers(1, 65_536))
def test_default_d_ff_is_the_nearest_multiple_of_64(d_model: int) -> None:
    d_ff = default_d_ff(d_model)
    assert d_ff >= 64
    assert d_ff % 64 == 0
    assert abs(d_ff - 8 * d_model / 3) <= 32 or (d_ff == 64 and d_model < 24)


@pytest.mark.parametrize("d_model", [64, 64.0, "64"])
@pytest.mark.parametrize("d_ff", [{}, {"d_ff": 0}])
def test_architecture_fills_in_the_inner_width(d_model: Any, d_ff: dict[str, int]) -> None:
    """However the width is written; 8/3·64 = 170.7 lies nearest to 192."""
    a = Architecture(vocab_size=300, d_model=d_model, **d_ff)
    assert (a.d_model, a.d_ff) == (64, 192)
    assert Architecture(vocab_size=300).d_ff == 192
    assert Architecture(vocab_size=300, d_model=d_model, d_ff=32).d_ff == 32


def test_architecture_round_trips_and_compares() -> None:
    a = Architecture(**SMALL)
    assert Architecture.model_validate_json(a.model_dump_json()) == a
    assert Architecture(**a.model_dump()) == a
    assert Architecture.model_validate(a) == a
    assert len({a, Architecture(**SMALL), Architecture(**{**SMALL, "n_layers": 3})}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 3}, "must be a multiple of n_heads, got 16 and 3"),
        ({"n_heads": 16}, r"must be even .* got 16 / 16 = 1"),
        ({"d_ff": 33}, "must be a multiple of 32, got 33"),
        ({"d_ff": -32}, "greater than or equal to 0"),
        ({"vocab_size": 1}, "greater than or equal to 2"),
        ({"end_of_text": 300}, "end_of_text must be below vocab_size, got 300 and 300"),
        ({"context_length": 0}, "greater than or equal to 1"),
        ({"d_model": 0}, "greater than or equal to 4"),
        ({"d_model": 16.5}, "fractional part"),
        ({"n_layers": 0}, "greater than or equal to 1"),
        ({"rope_theta": 1.0}, "greater than 1"),
        ({"width": 3}, "Extra inputs"),
        ({"n_kv_heads": 3}, "n_heads must be a multiple of n_kv_heads .* got 2 and 3"),
        ({"n_kv_heads": 4}, "n_heads must be a multiple of n_kv_heads .* got 2 and 4"),
        ({"d_model": 12, "n_heads": 4}, r"even with position rope .* got 12 / 4 = 3"),
        ({"d_model": 18, "n_heads": 1}, "d_model must be a multiple of 4, got 18"),
        (
            {"n_heads": 8, "n_kv_heads": 1},
            r"n_kv_heads · d_model / n_heads must be a multiple of 4, got 1 · 2",
        ),
        (
            {"n_heads": 16, "position": "none", "qk_norm": True},
            r"qk_norm needs heads wider than 1 .* got d_model / n_heads = 16 / 16 = 1",
        ),
        ({"activation": "swish"}, "'swiglu', 'geglu', 'relu', 'gelu', 'gelu_tanh' or 'silu'"),
        ({"position": "rotary"}, "'learned', 'alibi', 'relative' or 'none'"),
        ({"norm": "batchnorm"}, "'rmsnorm' or 'layernorm'"),
        ({"norm_placement": "sandwich"}, "'pre' or 'post'"),
        ({"logit_soft_cap": -1.0}, "greater than or equal to 0"),
        ({"logit_soft_cap": math.inf}, "finite number"),
        ({"qk_norm": "maybe"}, "valid boolean"),
        ({"head_width": 7}, r"head_width must be even .* got 7"),
        ({"head_width": 6, "n_kv_heads": 1}, "n_kv_heads · head_width must be a multiple of 4"),
        ({"norm_eps": 0.0}, "greater than 0"),
        ({"rope_factor": 0.5}, "greater than or equal to 1"),
        (
            {"rope_low_frequency": 4.0},
            "rope_low_frequency must be below rope_high_frequency, got 4 and 4",
        ),
    ],
)
def test_architecture_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Architecture(**{**SMALL, **change})


@pytest.mark.parametrize("value", [3, None, "small", []])
def test_architecture_refuses_other_types(value: object) -> None:
    with pytest.raises(ValidationError):
        Architecture.model_validate(value)


def test_late_entries_are_left_out_of_the_json_at_their_defaults() -> None:
    """The hash of a specification that is older than the entries does not change."""
    late = {"head_width", "biases", "norm_eps", "scaled_head", "target"}
    written = Architecture(**SMALL, head_width=8).model_dump()  # 8 is d_model / n_heads
    assert not (late | {n for n in Architecture.model_fields if "rope_" in n}) & {*written} - {
        "rope_theta"
    }
    for name, value in (("head_width", 12), ("biases", "qkv"), ("norm_eps", 1e-6)):
        a = Architecture(**SMALL, **{name: value})
        assert a.model_dump() == {**written, name: value}
        assert Architecture.model_validate_json(a.model_dump_json()) == a


def test_n_kv_heads_default_to_n_heads() -> None:
    assert Architecture(**SMALL).n_kv_heads == 2
    assert Architecture(**SMALL, n_kv_heads=0).n_kv_heads == 2
    assert Architecture(**SMALL, n_kv_heads=1).n_kv_heads == 1


def module_of(a: Architecture, k: int = 1) -> TransformerLM:
    sizes = ("vocab_size", "context_length", "d_model", "n_layers", "n_heads", "d_ff", "rope_theta")
    no_choices = {*sizes, "n_encoder_layers", "source_length"}
    choices = {name: value for name, value in a.model_dump().items() if name not in no_choices}
    return TransformerLM(k, *(getattr(a, name) for name in sizes), **choices)


def written_out(a: Architecture) -> int:
    """Parameters by the formula that one would write on paper."""
    d_head = a.head_width or a.d_model // a.n_heads
    q, kv = d_head * a.n_heads, d_head * a.n_kv_heads
    gains = (2 if a.norm == "layernorm" else 1) * a.d_model
    matrices = 3 if a.activation in ("swiglu", "geglu") else 2
    block = 2 * a.d_model * (q + kv) + matrices * a.d_model * a.d_ff + 2 * gains
    block += 2 * d_head if a.qk_norm else 0
    block += q + 2 * kv if a.biases != "none" else 0
    block += 2 * a.d_model + (matrices - 1) * a.d_ff if a.biases == "all" else 0
    tables = (1 if a.tied_embeddings else 2) * a.vocab_size * a.d_model
    tables += a.context_length * a.d_model if a.position == "learned" else 0
    tables += 32 * a.n_heads if a.position == "relative" else 0
    return tables + a.n_layers * block + (gains if a.norm_placement == "pre" else 0)


@settings(max_examples=50)
@given(mix=mixes())
def test_num_parameters_equals_the_module(mix: dict[str, Any]) -> None:
    a = Architecture(vocab_size=263, **mix)
    model = module_of(a, 2)
    assert sum(p.numel() for p in model.parameters()) == 2 * a.num_parameters == 2 * written_out(a)
    assert {n: tuple(p.shape[1:]) for n, p in model.named_parameters()} == parameter_shapes(a)
    assert all(p.requires_grad for p in model.parameters())


@settings(max_examples=50)
@given(mix=mixes())
def test_parameter_shapes_are_in_order(mix: dict[str, Any]) -> None:
    """Matrices, embeddings, gains and biases: weight decay touches a prefix."""
    shapes = parameter_shapes(Architecture(vocab_size=263, **mix))
    rank = [2 if len(shape) == 1 else not is_decayed(name) for name, shape in shapes.items()]
    assert rank == sorted(rank)
    assert [is_decayed(name) for name in shapes] == [r == 0 for r in rank]


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("d_model", [4, 16, 64, 100, 768])
def test_plain_and_gated_feed_forward_layers_are_equally_large(
    activation: Any, d_model: int
) -> None:
    plain = Architecture(vocab_size=300, d_model=d_model, n_heads=1, activation=activation)
    for gated in ("swiglu", "geglu"):
        a = Architecture(vocab_size=300, d_model=d_model, n_heads=1, activation=gated)
        assert a.num_parameters == plain.num_parameters
    assert plain.d_ff == pytest.approx(4 * d_model, rel=0.15) or d_model < 64
    assert plain.d_ff % 32 == 0


@pytest.mark.slow
@settings(max_examples=30)
@given(mix=mixes())
def test_flops_per_token_equals_torch_counter(mix: dict[str, Any]) -> None:
    """Torch counts a forward and a backward pass; attention is counted without its causal half."""
    a = Architecture(vocab_size=263, **mix)
    ids = torch.zeros(1, 4, a.context_length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module_of(a)(ids).sum().backward()
    assert a.flops_per_token * 4 * a.context_length == counter.get_total_flops()
