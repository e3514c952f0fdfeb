"""The layers of the Transformer, stacked: K models in one set of tensors.

K = slots in a stack, B = sequences, T = tokens, D = width, F = inner width, H = heads,
d = width of a head, V = vocabulary. Every weight and activation leads with K; nothing here mixes
slots, and a slot's bits do not depend on K.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from model.randomness import DropoutMasks


def linear(w: Tensor, x: Tensor) -> Tensor:
    """A linear map without bias.

    Args:
        w: (K, o, i).
        x: (K, ..., i).

    Returns:
        (K, ..., o).
    """
    y = torch.bmm(x.reshape(x.shape[0], -1, x.shape[-1]), w.transpose(1, 2))  # (K, ..., o) flat
    return y.view(*x.shape[:-1], w.shape[1])


def embedding(w: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table.

    Args:
        w: (K, V, d).
        ids: (K, ...), int64 in [0, V).

    Returns:
        (K, ..., d).
    """
    if len(w) == 1 and w.device.type == "cpu":
        # faster, with the same order of sums in the gradient, which other devices do not promise
        return F.embedding(ids[0], w[0]).unsqueeze(0)
    slot = torch.arange(w.shape[0], device=w.device).view(-1, *[1] * (ids.dim() - 1))
    return w[slot, ids]


def silu(x: Tensor) -> Tensor:
    """x·σ(x), element by element. Source: Elfwing et al. 2017 (arXiv:1702.03118)."""
    return F.silu(x)


def softmax(x: Tensor, dim: int) -> Tensor:
    """Exponentials over their sum along `dim`, shifted by the maximum so that none overflows."""
    return torch.softmax(x, dim)


def rmsnorm(w: Tensor, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Scale to unit root mean square, in float32, then by a gain.

    Args:
        w: gains, (K, D).
        x: (K, ..., D).
        eps: added to the mean square.

    Returns:
        (K, ..., D) in the dtype of `x`.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467).
    """
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    gain = w.view(w.shape[0], *[1] * (x.dim() - 2), w.shape[-1])
    return (wide * inverse * gain).to(x.dtype)


def swiglu(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor) -> Tensor:
    """The gated feed-forward layer w2·(silu(w1·x) ⊙ w3·x).

    Args:
        w1: gate, (K, F, D).
        w2: down, (K, D, F).
        w3: up, (K, F, D).
        x: (K, ..., D).

    Returns:
        (K, ..., D).

    Source: Shazeer 2020, equation 6 (arXiv:2002.05202).
    """
    return linear(w2, silu(linear(w1, x)) * linear(w3, x))


@lru_cache(maxsize=32)
def _default_angles(
    length: int, d: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions 0 … length−1, (T, d/2) each."""
    with torch.inference_mode(False):  # what is kept must serve training as well
        return _angles(torch.arange(length, device=device), d, theta)


def _angles(positions: Tensor, d: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position·theta^(−2i/d), computed in float64, (..., T, d/2) float32."""
    exponent = torch.arange(0, d, 2, dtype=torch.float64, device=positions.device) / d
    angle = positions.double().unsqueeze(-1) * theta**-exponent
    return angle.cos().float(), angle.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) of (..., T, d) by its angle, (..., T, d/2)."""
    even, odd = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def rope(x: Tensor, token_positions: Tensor, theta: float = 10_000.0) -> Tensor:
    """Rotary position embedding over interleaved pairs.

    Args:
        x: (..., T, d), d even.
        token_positions: (..., T) or (T,), int64.
        theta: base of the angles.

    Returns:
        The shape and dtype of `x`.

    Raises:
        ValueError: if d is odd.

    Source: Su et al. 2021, equation 34 (arXiv:2104.09864).
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rope turns pairs: the last dimension must be even, got {x.shape[-1]}")
    cos, sin = _angles(token_positions, x.shape[-1], theta)
    while 2 < cos.dim() < x.dim():  # (K, B, T) positions meet (K, B, H, T, d) queries
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    return _rotate(x, cos.to(x.dtype), sin.to(x.dtype))


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """softmax(q·kᵀ/√d)·v.

    Args:
        q: (..., T, d).
        k: (..., S, d).
        v: (..., S, e).
        mask: (..., T, S) bool, True = attend.

    Returns:
        (..., T, e).

    Source: Vaswani et al. 2017, equation 1 (arXiv:1706.03762).
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def multihead_self_attention(
    wq: Tensor,
    wk: Tensor,
    wv: Tensor,
    wo: Tensor,
    x: Tensor,
    num_heads: int,
    theta: float | None = None,
    token_positions: Tensor | None = None,
) -> Tensor:
    """Causal self-attention with several heads.

    Args:
        wq: (K, D, D), rows head-major; likewise `wk`, `wv` and `wo`.
        wk: keys.
        wv: values.
        wo: output.
        x: (K, B, T, D).
        num_heads: H, a divisor of D.
        theta: base of the rotary angles; None for no rotary embedding.
        token_positions: (K, B, T) or (T,); None means 0 … T−1.

    Returns:
        (K, B, T, D).
    """
    slots, batch, length, width = x.shape
    heads = (slots * batch, length, num_heads, width // num_heads)
    q = linear(wq, x).view(heads).transpose(1, 2)  # (KB, H, T, d)
    k = linear(wk, x).view(heads).transpose(1, 2)  # (KB, H, T, d)
    v = linear(wv, x).view(heads).transpose(1, 2)  # (KB, H, T, d)
    if theta is not None:
        if token_positions is None:
            cos, sin = _default_angles(length, heads[-1], theta, x.device)  # (T, d/2)
        else:
            cos, sin = _angles(token_positions, heads[-1], theta)
            if cos.dim() > 2:  # (K, B, T, d/2) → (KB, 1, T, d/2)
                cos, sin = cos.flatten(0, 1).unsqueeze(1), sin.flatten(0, 1).unsqueeze(1)
        q, k = _rotate(q, cos.to(q), sin.to(q)), _rotate(k, cos.to(k), sin.to(k))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (KB, H, T, d)
    return linear(wo, y.transpose(1, 2).reshape(x.shape))


def transformer_block(
    weights: Mapping[str, Tensor],
    x: Tensor,
    num_heads: int,
    theta: float | None,
    drop: DropoutMasks | None = None,
    place: int = 0,
) -> Tensor:
    """One pre-norm block: attention and SwiGLU, each added to the residual stream.

    Args:
        weights: `attn.{q,k,v,output}_proj.weight`, `ffn.w{1,2,3}.weight`, `ln{1,2}.weight`.
        x: (K, B, T, D).
        num_heads: H.
        theta: base of the rotary angles; None for no rotary embedding.
        drop: masks for the two branches; None drops nothing.
        place: number of the block, so that no two places share a mask.

    Returns:
        (K, B, T, D).
    """
    branch = multihead_self_attention(
        weights["attn.q_proj.weight"],
        weights["attn.k_proj.weight"],
        weights["attn.v_proj.weight"],
        weights["attn.output_proj.weight"],
        rmsnorm(weights["ln1.weight"], x),
        num_heads,
        theta,
    )
    x = x + (drop(branch, 2 * place + 1) if drop else branch)
    branch = swiglu(
        weights["ffn.w1.weight"],
        weights["ffn.w2.weight"],
        weights["ffn.w3.weight"],
        rmsnorm(weights["ln2.weight"], x),
    )
    return x + (drop(branch, 2 * place + 2) if drop else branch)
