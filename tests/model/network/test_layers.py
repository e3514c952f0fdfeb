"""Every layer against torch or a float64 formula, alone and in a stack of three."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.network import positions
from model.network.attention import multihead_self_attention, scaled_dot_product_attention
from model.network.block import transformer_block
from model.network.feed_forward import silu, swiglu
from model.network.layers import embedding, linear, softmax
from model.network.norms import rmsnorm
from model.network.positions import rope

STACKS = pytest.mark.parametrize("k", [1, 3])
HEADS, WIDTH, INNER, TOKENS, BATCH, THETA = 2, 8, 12, 6, 2, 100.0


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


# references for one model, in float64 -----------------------------------------------------------


def rmsnorm_one(w: Tensor, x: Tensor, eps: float = 1e-5) -> Tensor:
    return x / (x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + eps).sqrt() * w


def swiglu_one(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor) -> Tensor:
    gate = x @ w1.T
    return (gate / (1 + torch.exp(-gate)) * (x @ w3.T)) @ w2.T


def rope_one(
    x: Tensor,
    positions: Tensor,
    theta: float,
    scaled: Callable[[float], float] = lambda frequency: frequency,
) -> Tensor:
    """One rotation matrix for each position, (d, d), times the vector at that position."""
    d = x.shape[-1]
    y = torch.empty_like(x)
    for t, position in enumerate(positions.tolist()):
        turn = torch.zeros(d, d, dtype=torch.float64)
        for i in range(d // 2):
            angle = position * scaled(1 / theta ** (2 * i / d))
            turn[2 * i, 2 * i] = turn[2 * i + 1, 2 * i + 1] = math.cos(angle)
            turn[2 * i + 1, 2 * i] = math.sin(angle)
            turn[2 * i, 2 * i + 1] = -math.sin(angle)
        y[..., t, :] = x[..., t, :] @ turn.T
    return y


def attention_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True) @ v


def multihead_one(
    wq: Tensor,
    wk: Tensor,
    wv: Tensor,
    wo: Tensor,
    x: Tensor,
    num_heads: int,
    theta: float | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """x is (T, D); head h owns rows h·d … (h+1)·d of the projections."""
    length, width = x.shape
    d = width // num_heads
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    heads = []
    for h in range(num_heads):
        rows = slice(h * d, (h + 1) * d)
        q, k, v = x @ wq[rows].T, x @ wk[rows].T, x @ wv[rows].T
        if theta is not None:
            at = torch.arange(length) if positions is None else positions
            q, k = rope_one(q, at, theta), rope_one(k, at, theta)
        heads.append(attention_one(q, k, v, causal))
    return torch.cat(heads, -1) @ wo.T


def block_one(w: dict[str, Tensor], x: Tensor, num_heads: int, theta: float | None) -> Tensor:
    projections = [w[f"attn.{name}_proj.weight"] for name in ("q", "k", "v", "output")]
    x = x + multihead_one(*projections, rmsnorm_one(w["ln1.weight"], x), num_heads, theta)
    inner = [w[f"ffn.w{i}.weight"] for i in (1, 2, 3)]
    return x + swiglu_one(*inner, rmsnorm_one(w["ln2.weight"], x))


def block_weights(k: int) -> dict[str, Tensor]:
    shapes = {f"attn.{n}_proj.weight": (WIDTH, WIDTH) for n in ("q", "k", "v", "output")}
    shapes |= {f"ffn.w{i}.weight": (INNER, WIDTH) for i in (1, 3)}
    shapes |= {"ffn.w2.weight": (WIDTH, INNER)}
    weights = {n: normal(k, *s, seed=i) / 3 for i, (n, s) in enumerate(shapes.items())}
    return weights | {f"ln{i}.weight": 1 + normal(k, WIDTH, seed=20 + i) / 5 for i in (1, 2)}


# the layers one by one --------------------------------------------------------------------------


@STACKS
@pytest.mark.parametrize("inner", [(), (5,), (2, 5), (2, 3, 4)])
def test_linear_equals_torch(k: int, inner: tuple[int, ...]) -> None:
    w, x = normal(k, 7, 4), normal(k, *inner, 4, seed=1)
    expected = torch.stack([torch.nn.functional.linear(x[i], w[i]) for i in range(k)])
    assert_near(linear(w, x), expected, 1e-12)
    assert linear(w, x.transpose(0, -1).contiguous().transpose(0, -1)).shape == (k, *inner, 7)


@STACKS
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_embedding_equals_torch(k: int, shape: tuple[int, ...]) -> None:
    """The gradient too: ids that repeat add up."""
    w = normal(k, 4, 3).requires_grad_()
    ids = torch.randint(4, (k, *shape), generator=torch.Generator().manual_seed(1))
    expected = torch.stack([torch.nn.functional.embedding(ids[i], w[i]) for i in range(k)])
    assert torch.equal(embedding(w, ids), expected)
    up = normal(*expected.shape, seed=2)
    (actual,) = torch.autograd.grad(embedding(w, ids), w, up)
    assert_near(actual, torch.autograd.grad(expected, w, up)[0], 1e-12)


def test_silu_equals_formula() -> None:
    x = torch.cat([normal(50) * 5, torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64)])
    assert_near(silu(x), x * torch.sigmoid(x), 1e-12)


@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_softmax_equals_formula(dim: int) -> None:
    x = normal(3, 4, 5)
    assert_near(softmax(x, dim), x.exp() / x.exp().sum(dim, keepdim=True), 1e-12)
    shifted = softmax(torch.tensor([[1e4, 1e4 - 1.0, -math.inf]]), -1)
    e = math.exp(-1)
    assert_near(shifted, torch.tensor([[1 / (1 + e), e / (1 + e), 0]], dtype=torch.float64))


@STACKS
@pytest.mark.parametrize("inner", [(), (5,), (2, 5)])
def test_rmsnorm_equals_formula(k: int, inner: tuple[int, ...]) -> None:
    w, x = normal(k, 6), normal(k, *inner, 6, seed=1) * 3
    expected = torch.stack([rmsnorm_one(w[i], x[i], 0.1) for i in range(k)])
    assert_near(rmsnorm(w, x, 0.1), expected)
    theirs = torch.stack([torch.nn.functional.rms_norm(x[i], (6,), w[i], 1e-5) for i in range(k)])
    assert_near(rmsnorm(w, x), theirs)


def test_rmsnorm_is_computed_in_float32() -> None:
    """In float16 the squares would overflow; bfloat16 keeps its type and float32's accuracy."""
    w, x = normal(2, 16, dtype=torch.float16).abs(), torch.full((2, 3, 16), 6e4).half()
    assert_near(rmsnorm(w, x), w.double()[:, None].expand(2, 3, 16), 1e-3)
    low = normal(1, 3, 256).bfloat16()
    y = rmsnorm(torch.ones(1, 256), low)
    assert y.dtype == torch.bfloat16
    exact = rmsnorm_one(torch.ones(256, dtype=torch.float64), low.double())
    assert torch.equal(y, exact.float().bfloat16())


def test_rmsnorm_of_zero_is_zero_with_a_gradient() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    rmsnorm(torch.ones(1, 4), x).sum().backward()
    assert_near(x.grad, torch.full((1, 4), 1e-5**-0.5, dtype=torch.float64))  # type: ignore[arg-type]


@STACKS
def test_swiglu_equals_formula(k: int) -> None:
    w1, w2, w3 = normal(k, 7, 4), normal(k, 4, 7, seed=1), normal(k, 7, 4, seed=2)
    x = normal(k, 2, 3, 4, seed=3)
    expected = torch.stack([swiglu_one(w1[i], w2[i], w3[i], x[i]) for i in range(k)])
    assert_near(swiglu(w1, w2, w3, x), expected, 1e-12)


@pytest.mark.parametrize("theta", [100.0, 10_000.0])
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 8), (2, 3, 5, 2)])
def test_rope_equals_rotation_matrices(shape: tuple[int, ...], theta: float) -> None:
    x, positions = normal(*shape), torch.tensor([0, 1, 7, 7, 1023])
    assert_near(rope(x, positions, theta), rope_one(x, positions, theta))


def test_rope_equals_complex_multiplication() -> None:
    x = normal(2, 9, 6)
    pairs = torch.view_as_complex(x.reshape(2, 9, 3, 2))
    angles = torch.arange(9)[:, None] * 10_000.0 ** -(torch.arange(0, 6, 2).double() / 6)
    expected = torch.view_as_real(pairs * torch.polar(torch.ones(9, 3).double(), angles))
    assert_near(rope(x, torch.arange(9)), expected.flatten(-2))


@pytest.mark.parametrize("shift", [1, 17, 4000])
def test_rope_scores_depend_on_relative_position_only(shift: int) -> None:
    q, k, at = normal(1, 8), normal(1, 8, seed=1), torch.tensor([3])
    near = rope(q, at + 5, THETA) @ rope(k, at, THETA).T
    far = rope(q, at + 5 + shift, THETA) @ rope(k, at + shift, THETA).T
    other = rope(q, at + 6 + shift, THETA) @ rope(k, at + shift, THETA).T
    assert_near(far, near, 1e-5)
    assert not torch.allclose(near, other, rtol=1e-3)
    assert_near(rope(q, at, THETA).norm(), q.norm())


def test_rope_takes_positions_per_sequence() -> None:
    """(K, B, T) positions meet (K, B, T, d) and (K, B, H, T, d)."""
    x, positions = normal(2, 3, 4, 5, 6), torch.randint(50, (2, 3, 5))
    y = rope(x, positions, THETA)
    without_heads = rope(x[:, :, 0], positions, THETA)
    for k in range(2):
        for b in range(3):
            assert_near(y[k, b], rope_one(x[k, b], positions[k, b], THETA))
            assert_near(without_heads[k, b], rope_one(x[k, b, 0], positions[k, b], THETA))


def test_rope_keeps_the_dtype_and_refuses_odd_widths() -> None:
    assert rope(normal(3, 4).bfloat16(), torch.arange(3), THETA).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="must be even, got 5"):
        rope(normal(3, 5), torch.arange(3), THETA)


@pytest.mark.parametrize("lead", [(), (3,), (1, 2, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_formula(lead: tuple[int, ...], masked: bool) -> None:
    q, k, v = normal(*lead, 5, 4), normal(*lead, 7, 4, seed=1), normal(*lead, 7, 3, seed=2)
    mask = None
    if masked:
        mask = torch.rand(*lead, 5, 7, generator=torch.Generator().manual_seed(3)) < 0.4
        mask[..., 0] = True  # a query needs something to attend to
    assert_near(scaled_dot_product_attention(q, k, v, mask), attention_one(q, k, v, mask), 1e-12)


def test_attention_mask_is_true_where_it_attends() -> None:
    q, k, v = normal(1, 4), normal(3, 4, seed=1), normal(3, 2, seed=2)
    only_second = torch.tensor([[False, True, False]])
    assert_near(scaled_dot_product_attention(q, k, v, only_second), v[1:2])


@STACKS
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_multihead_self_attention_equals_torch(k: int, heads: int) -> None:
    """Without rotary embedding: torch.nn.MultiheadAttention with its weights set."""
    w, x = normal(4, k, WIDTH, WIDTH), normal(k, BATCH, TOKENS, WIDTH, seed=1)
    y = multihead_self_attention(*w, x, heads)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS, dtype=torch.float64)
    for slot in range(k):
        theirs = torch.nn.MultiheadAttention(
            WIDTH, heads, bias=False, batch_first=True, dtype=torch.float64
        )
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([w[0, slot], w[1, slot], w[2, slot]]))
            theirs.out_proj.weight.copy_(w[3, slot])
            expected, _ = theirs(x[slot], x[slot], x[slot], attn_mask=mask)
        assert_near(y[slot], expected, 1e-12)


@STACKS
@pytest.mark.parametrize("kind", ["default", "shared", "each"])
def test_multihead_self_attention_with_rope_equals_a_loop_over_heads(k: int, kind: str) -> None:
    w, x = normal(4, k, WIDTH, WIDTH), normal(k, BATCH, TOKENS, WIDTH, seed=1)
    shared = torch.tensor([3, 1, 4, 1, 5, 9])
    each = torch.randint(99, (k, BATCH, TOKENS), generator=torch.Generator().manual_seed(2))
    at = {"default": None, "shared": shared, "each": each}[kind]
    y = multihead_self_attention(*w, x, HEADS, THETA, at)
    for slot in range(k):
        for b in range(BATCH):
            row_positions = each[slot, b] if kind == "each" else at
            expected = multihead_one(*w[:, slot], x[slot, b], HEADS, THETA, row_positions)
            assert_near(y[slot, b], expected)


def test_multihead_self_attention_sees_no_later_token() -> None:
    w, x = normal(4, 1, WIDTH, WIDTH), normal(1, 1, TOKENS, WIDTH, seed=1)
    changed = x.clone()
    changed[:, :, 4:] += 1
    before, after = (multihead_self_attention(*w, each, HEADS, THETA) for each in (x, changed))
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4], after[:, :, 4])


def test_multihead_self_attention_trains_after_inference_mode() -> None:
    """Angles cached in inference mode must serve training too."""
    positions._default_turns.cache_clear()
    w = normal(4, 1, WIDTH, WIDTH, dtype=torch.float32).requires_grad_()
    x = normal(1, 1, TOKENS, WIDTH, seed=1, dtype=torch.float32)
    with torch.inference_mode():
        multihead_self_attention(*w, x, HEADS, THETA)
    multihead_self_attention(*w, x, HEADS, THETA).sum().backward()
    assert w.grad is not None


@STACKS
def test_transformer_block_equals_formula(k: int) -> None:
    weights, x = block_weights(k), normal(k, BATCH, TOKENS, WIDTH, seed=9)
    y = transformer_block(weights, x, HEADS, THETA)
    for slot in range(k):
        slot_weights = {name: w[slot] for name, w in weights.items()}
        for b in range(BATCH):
            assert_near(y[slot, b], block_one(slot_weights, x[slot, b], HEADS, THETA))


# gradients --------------------------------------------------------------------------------------

DIFFERENTIABLE: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "linear": (linear, ((2, 3, 4), (2, 3, 4))),
    "embedding": (lambda w: embedding(w, torch.tensor([[0, 2, 2], [1, 1, 0]])), ((2, 3, 2),)),
    "embedding of one": (lambda w: embedding(w, torch.tensor([[0, 2, 2]])), ((1, 3, 2),)),
    "silu": (silu, ((7,),)),
    "softmax": (lambda x: softmax(x, 1), ((2, 4, 3),)),
    "swiglu": (swiglu, ((2, 3, 2), (2, 2, 3), (2, 3, 2), (2, 2, 2))),
    "rope": (lambda x: rope(x, torch.tensor([0, 5, 9]), THETA), ((2, 3, 4),)),
    "attention": (
        lambda q, k, v: scaled_dot_product_attention(q, k, v, torch.ones(3, 3).tril().bool()),
        ((2, 3, 4), (2, 3, 4), (2, 3, 2)),
    ),
    "multihead": (
        lambda *a: multihead_self_attention(*a, num_heads=2, theta=THETA),
        (*((2, 4, 4),) * 4, (2, 1, 3, 4)),
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_equals_finite_differences(name: str) -> None:
    function, shapes = DIFFERENTIABLE[name]
    inputs = [normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(function, inputs)


@STACKS
def test_rmsnorm_gradient_equals_float64(k: int) -> None:
    """Rmsnorm computes in float32 by design, so finite differences are too coarse."""
    w, x = normal(k, 6).requires_grad_(), normal(k, 2, 5, 6, seed=1).requires_grad_()
    up = normal(k, 2, 5, 6, seed=2)
    expected = torch.stack([rmsnorm_one(w[i], x[i]) for i in range(k)])
    actual = torch.autograd.grad(rmsnorm(w, x), (w, x), up)
    for a, e in zip(actual, torch.autograd.grad(expected, (w, x), up), strict=True):
        assert_near(a, e, 1e-5)


@STACKS
def test_transformer_block_gradient_equals_float64(k: int) -> None:
    weights: dict[str, Any] = {n: w.requires_grad_() for n, w in block_weights(k).items()}
    x = normal(k, 1, TOKENS, WIDTH, seed=9).requires_grad_()
    up = normal(k, 1, TOKENS, WIDTH, seed=10)
    slot_weights = [{name: w[slot] for name, w in weights.items()} for slot in range(k)]
    expected = torch.stack([block_one(slot_weights[i], x[i, 0], HEADS, THETA) for i in range(k)])[
        :, None
    ]
    inputs = (x, *weights.values())
    actual = torch.autograd.grad(transformer_block(weights, x, HEADS, THETA), inputs, up)
    for a, e in zip(actual, torch.autograd.grad(expected, inputs, up), strict=True):
        assert_near(a, e, 2e-5)
