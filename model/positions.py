"""How a token knows where it stands, and a registry of the ways.

K = slots in a stack, B = sequences, T = tokens, D = width, H = heads, d = width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from model.architecture import Architecture
from model.layers import Weights

Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_CACHED = 32  # shapes whose tables are kept


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


def rope_both(theta: float, token_positions: Tensor | None = None) -> Turn:
    """What turns queries and keys of the same tokens, (KB, H, T, d) each.

    Args:
        theta: base of the angles.
        token_positions: (K, B, T) or (T,); None means 0 … T−1.
    """

    def turn(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        length, d = q.shape[-2:]
        if token_positions is None:
            cos, sin = _default_angles(length, d, theta, q.device)  # (T, d/2)
        else:
            cos, sin = _angles(token_positions, d, theta)
            if cos.dim() > 2:  # (K, B, T, d/2) → (KB, 1, T, d/2)
                cos, sin = cos.flatten(0, 1).unsqueeze(1), sin.flatten(0, 1).unsqueeze(1)
        cos, sin = cos.to(q), sin.to(q)
        return _rotate(q, cos, sin), _rotate(k, cos, sin)

    return turn


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) of (..., T, d) by its angle, (..., T, d/2)."""
    even, odd = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def _angles(positions: Tensor, d: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position·theta^(−2i/d), computed in float64, (..., T, d/2) float32."""
    exponent = torch.arange(0, d, 2, dtype=torch.float64, device=positions.device) / d
    angle = positions.double().unsqueeze(-1) * theta**-exponent
    return angle.cos().float(), angle.sin().float()


@lru_cache(_CACHED)
def _default_angles(
    length: int, d: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions 0 … length−1, (T, d/2) each."""
    with torch.inference_mode(False):  # what is kept must serve training as well
        return _angles(torch.arange(length, device=device), d, theta)


@lru_cache(_CACHED)
def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of position/10000^(2i/D), interleaved, (T, D) float32.

    Source: Vaswani et al. 2017, section 3.5 (arXiv:1706.03762).
    """
    with torch.inference_mode(False):
        cos, sin = _angles(torch.arange(length, device=device), width, 10_000.0)
        return torch.stack((sin, cos), -1).flatten(-2)


def alibi_slopes(num_heads: int) -> list[float]:
    """How fast each head forgets: 2^(−8h/H) if H is a power of two.

    Otherwise those of the next lower power of two, and then every second one of the next higher.

    Source: Press et al. 2021, section 3 and its published code (arXiv:2108.12409).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return slopes + between[: num_heads - power]


@lru_cache(4)  # fewer: these are large
def alibi_bias(length: int, num_heads: int, device: torch.device) -> Tensor:
    """What is added to the scores: −slope·distance, −∞ for later tokens, (1, H, T, T) float32."""
    with torch.inference_mode(False):
        at = torch.arange(length, device=device)
        ahead = at - at.unsqueeze(-1)  # (T, T), negative for earlier tokens
        slopes = torch.tensor(alibi_slopes(num_heads), dtype=torch.float64, device=device)
        bias = (slopes.view(-1, 1, 1) * ahead).float()  # (H, T, T)
        return bias.masked_fill(ahead > 0, -math.inf).unsqueeze(0)


def _same_input(_: Weights, x: Tensor) -> Tensor:
    return x


def _same_heads(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return q, k


def _no_bias(length: int, device: torch.device) -> Tensor | None:
    return None


@dataclass(frozen=True)
class Position:
    """Where positions enter; each way uses one of the three.

    Attributes:
        at_input: (weights, token embeddings (K, B, T, D)) → the same with positions.
        turn: queries and keys (KB, H, T, d) → the same, turned.
        bias: (T, device) → bias of the scores (1, H, T, T), later tokens at −∞; None for no bias.
    """

    at_input: Callable[[Weights, Tensor], Tensor] = _same_input
    turn: Turn = _same_heads
    bias: Callable[[int, torch.device], Tensor | None] = _no_bias


def _sinusoidal(a: Architecture) -> Position:
    return Position(at_input=lambda _, x: x + sinusoids(x.shape[-2], a.d_model, x.device).to(x))


def _learned(a: Architecture) -> Position:
    """A table of positions. Source: Radford et al. 2018 (GPT), section 4.1."""

    def add_rows(w: Weights, x: Tensor) -> Tensor:
        table = w["position_embeddings.weight"]  # (K, context, D)
        return x + table[:, : x.shape[-2]].unsqueeze(1)

    return Position(at_input=add_rows)


def _alibi(a: Architecture) -> Position:
    return Position(bias=lambda length, device: alibi_bias(length, a.n_heads, device))


POSITIONS: Mapping[str, Callable[[Architecture], Position]] = {
    "rope": lambda a: Position(turn=rope_both(a.rope_theta)),
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "alibi": _alibi,
    # The causal mask alone tells positions apart: Kazemnejad et al. 2023 (arXiv:2305.19466).
    "none": lambda a: Position(),
}
