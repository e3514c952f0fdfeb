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

from model.architecture import Architecture, default_d_ff
from model.transformer import TransformerLM, parameter_shapes

SMALL: dict[str, Any] = {"vocab_size": 300, "context_length": 8, "d_model": 16, "n_heads": 2}


@settings(deadline=None)
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
        ({"vocab_size": 256}, "greater than or equal to 257"),
        ({"context_length": 0}, "greater than or equal to 1"),
        ({"d_model": 0}, "greater than or equal to 2"),
        ({"d_model": 16.5}, "fractional part"),
        ({"n_layers": 0}, "greater than or equal to 1"),
        ({"rope_theta": 1.0}, "greater than 1"),
        ({"width": 3}, "Extra inputs"),
    ],
)
def test_architecture_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Architecture(**{**SMALL, **change})


@pytest.mark.parametrize("value", [3, None, "small", []])
def test_architecture_refuses_what_is_no_mapping(value: object) -> None:
    with pytest.raises(ValidationError):
        Architecture.model_validate(value)


@pytest.mark.parametrize("change", [{}, {"n_layers": 1, "d_ff": 96}, {"d_model": 48, "n_heads": 3}])
def test_num_parameters_counts_those_of_the_model(change: dict[str, Any]) -> None:
    a = Architecture(**{**SMALL, **change})
    model = TransformerLM(
        2, a.vocab_size, a.context_length, a.d_model, a.n_layers, a.n_heads, a.d_ff
    )
    assert sum(p.numel() for p in model.parameters()) == 2 * a.num_parameters
    assert sum(math.prod(shape) for shape in parameter_shapes(a).values()) == a.num_parameters


def test_flops_per_token_equals_torch_counter() -> None:
    """Torch counts a forward and a backward pass; attention is counted without its causal half."""
    a = Architecture(vocab_size=512, context_length=32, d_model=64, n_layers=2, n_heads=2)
    model = TransformerLM(1, 512, 32, 64, 2, 2, a.d_ff)
    ids = torch.zeros(1, 4, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids).sum().backward()
    assert a.flops_per_token == pytest.approx(counter.get_total_flops() / (4 * 32), rel=0.01)
