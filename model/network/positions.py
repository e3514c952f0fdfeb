"""Position encodings, and their registry.

K = slots in a stack, B = sequences, T = tokens, S = tokens attended to, D = width, H = heads,
d = width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from model.device.precision import exact_device
from model.network.layers import Weights, embedding
from model.spec.architecture import Architecture
from model.spec.choices import RELATIVE_BUCKETS, Tower

# queries and keys (KB, H, T, d) of the same tokens, and their positions, (K, B, T) or (T,), None
# for 0 … T−1 → queries and keys, rotated
Turn = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
_FARTHEST = 128  # distances from this one on share the last bucket of the relative bias


def rope(x: Tensor, token_positions: Tensor, theta: float = 10_000.0) -> Tensor:
    """Apply rotary position embedding to interleaved pairs.

    Args:
        x: (..., T, d), d even.
        token_positions: (..., T) or (T,), int64.
        theta: base of the angles.

    Returns:
        Rotated `x`, with its shape and dtype.

    Raises:
        ValueError: if d is odd.

    Source: Su et al. 2021, equation 34 (arXiv:2104.09864).
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rope turns pairs: the last dimension must be even, got {x.shape[-1]}")
    turns = _turns(token_positions, x.shape[-1], theta)
    while 3 < turns.dim() <= x.dim():  # (K, B, T) positions meet (K, B, H, T, d) queries
        turns = turns.unsqueeze(-3)
    return _rotate(x, turns)


class RopeScaling(NamedTuple):
    """Slower rotary angles, with which a model reads longer contexts than it was trained on.

    Attributes:
        factor: divisor of the angles that are scaled.
        low: pairs that turn up to this often in `length` tokens are scaled completely; None scales
            all pairs.
        high: pairs that turn at least this often are not scaled; the share rises in between.
        length: context before, in tokens.

    Source: Chen et al. 2023 (arXiv:2306.15595); by frequency: Llama Team 2024 (arXiv:2407.21783),
    in its published code, `apply_scaling`.
    """

    factor: float
    low: float | None = None
    high: float = 4.0
    length: int = 8_192

    @classmethod
    def of(cls, a: Architecture) -> RopeScaling | None:
        """Return the scaling of an architecture; None if its angles are not scaled."""
        if a.rope_scaling == "none":
            return None
        if a.rope_scaling == "linear":
            return cls(a.rope_factor)
        return cls(
            a.rope_factor, a.rope_low_frequency, a.rope_high_frequency, a.rope_original_length
        )

    def apply(self, frequencies: Tensor) -> Tensor:
        """Return the scaled angles of one position, (d/2,) float64."""
        if self.low is None:
            return frequencies / self.factor
        turns = self.length * frequencies / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies

    def divisors(self, d: int, theta: float) -> Tensor:
        """Return the divisor of each pair's angle, (d/2,) float64."""
        frequencies = theta ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
        return frequencies / self.apply(frequencies)


def rope_both(theta: float, longest: int | None = None, scaling: RopeScaling | None = None) -> Turn:
    """Return a function that rotates queries and keys of the same tokens.

    Args:
        theta: base of the angles.
        longest: number of positions, for a table of their angles; None computes the angles anew in
            each call with explicit positions.
        scaling: scaling of the angles; None for none.
    """

    def turn(q: Tensor, k: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        length, d = q.shape[-2:]
        if positions is None:
            turns = _default_turns(longest or length, d, theta, q.device, scaling)[:, :length]
        elif longest is None:
            turns = _turns(positions, d, theta, scaling)
        else:
            turns = _default_turns(longest, d, theta, q.device, scaling)[:, positions]
        if turns.dim() > 3:  # (2, K, B, T, d) → (2, KB, 1, T, d)
            turns = turns.flatten(1, 2).unsqueeze(2)
        return _rotate(q, turns), _rotate(k, turns)

    return turn


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate each pair (x[2i], x[2i+1]) by its angle, at least in float32.

    Computed as x·cos + x′·(∓sin), where x′ has each pair swapped. Complex numbers would be faster,
    but the rounding of their product depends on its memory alignment.

    Args:
        x: (..., T, d), any floating dtype.
        turns: factors from `_turns`.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    swapped = wide.view(*x.shape[:-1], -1, 2).flip(-1).view(x.shape)
    cos, sin = turns.to(wide.dtype)
    turned: Tensor = wide * cos + swapped * sin
    return turned.to(x.dtype)


def _turns(positions: Tensor, d: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Return the factors for `_rotate`: cosines, and sines with their signs, (2, ..., T, d)."""
    cos, sin = _angles(positions, d, theta, scaling)
    both = torch.stack((cos, cos), -1), torch.stack((-sin, sin), -1)
    return torch.stack([pair.flatten(-2) for pair in both])


def _angles(
    positions: Tensor, d: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of position·theta^(−2i/d), from float64, (..., T, d/2) float32."""
    device = exact_device(positions.device)
    exponent = torch.arange(0, d, 2, dtype=torch.float64, device=device) / d
    frequencies = theta**-exponent if scaling is None else scaling.apply(theta**-exponent)
    angle = positions.to(device).double().unsqueeze(-1) * frequencies
    return angle.cos().float().to(positions.device), angle.sin().float().to(positions.device)


@cache
def _default_turns(
    length: int, d: int, theta: float, device: torch.device, scaling: RopeScaling | None
) -> Tensor:
    """Return the factors for positions 0 … length−1, (2, T, d) float32."""
    with torch.inference_mode(False):  # the cached tensor must serve training as well
        return _turns(torch.arange(length, device=device), d, theta, scaling)


@cache
def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of position/10000^(2i/D), interleaved, (T, D) float32.

    Source: Vaswani et al. 2017, section 3.5 (arXiv:1706.03762).
    """
    with torch.inference_mode(False):
        cos, sin = _angles(torch.arange(length, device=device), width, 10_000.0)
        return torch.stack((sin, cos), -1).flatten(-2)


def alibi_slopes(num_heads: int) -> list[float]:
    """Return the slope of each head's bias: 2^(−8h/H) if H is a power of two.

    Otherwise the slopes of the next lower power of two, and then every second one of the next
    higher power.

    Source: Press et al. 2021, section 3 and its published code (arXiv:2108.12409).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    between = [2 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return slopes + between[: num_heads - power]


def _ahead(length: int, device: torch.device) -> Tensor:
    """Return position of key minus position of query, (T, T) int64, negative for earlier keys."""
    positions = torch.arange(length, device=device)
    return positions - positions.unsqueeze(-1)


@cache
def alibi_bias(length: int, num_heads: int, device: torch.device, is_causal: bool = True) -> Tensor:
    """Return the bias of the scores, −slope·distance, (1, H, T, T) float32.

    Later tokens get −∞ if attention is causal; otherwise their distance counts as for earlier ones.
    """
    with torch.inference_mode(False):
        ahead = _ahead(length, device)
        bias = _distance_penalty(ahead, num_heads)  # (H, T, T)
        if is_causal:
            bias = bias.masked_fill(ahead > 0, -math.inf)
        return bias.unsqueeze(0)


def _distance_penalty(ahead: Tensor, num_heads: int) -> Tensor:
    """Return −slope·distance of each head, (..., T, S) → (..., H, T, S) float32."""
    device = exact_device(ahead.device)
    slopes = torch.tensor(alibi_slopes(num_heads), dtype=torch.float64, device=device)
    distance = ahead.abs().unsqueeze(-3).to(device)
    return (slopes.view(-1, 1, 1) * -distance).float().to(ahead.device)


@cache
def relative_buckets(length: int, device: torch.device, is_causal: bool) -> Tensor:
    """Return the bucket of the distance of each key from each query, (T, T) int64."""
    with torch.inference_mode(False):
        return _buckets(_ahead(length, device), is_causal)


def _buckets(ahead: Tensor, is_causal: bool) -> Tensor:
    """Return the bucket of each distance, int64.

    Half of the buckets hold one distance each, the others widen logarithmically up to a distance
    of 128. Without causal attention, half of all buckets are for later tokens.

    Source: Raffel et al. 2020, section 2.1 (arXiv:1910.10683), and its published code.
    """
    count = RELATIVE_BUCKETS if is_causal else RELATIVE_BUCKETS // 2
    distance = (-ahead).clamp(min=0) if is_causal else ahead.abs()
    exact = count // 2
    near = distance.to(exact_device(ahead.device)).double() / exact
    ratio = near.clamp(min=1).log() / math.log(_FARTHEST / exact)
    wide = exact + (ratio * (count - exact)).long().clamp(max=count - exact - 1).to(ahead.device)
    bucket = torch.where(distance < exact, distance, wide)
    return bucket if is_causal else bucket + count * (ahead > 0)


def relative_bias(table: Tensor, length: int, is_causal: bool) -> Tensor:
    """Return the learned bias of the scores: a number for each head and bucket of distances.

    Args:
        table: (K, buckets, H).
        length: T.
        is_causal: whether later tokens are out of sight.

    Returns:
        (K, H, T, T), −∞ where a token may not attend.

    Source: Raffel et al. 2020, section 2.1 (arXiv:1910.10683); there scores are not divided by √d.
    """
    buckets = relative_buckets(length, table.device, is_causal)
    bias = embedding(table, buckets.expand(len(table), -1, -1)).permute(0, 3, 1, 2)
    if not is_causal:
        return bias
    return bias.masked_fill(_ahead(length, table.device) > 0, -math.inf)


def _same_input(w: Weights, x: Tensor, positions: Tensor | None) -> Tensor:
    return x


def _same_heads(q: Tensor, k: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    return q, k


def _no_bias(w: Weights, length: int, device: torch.device) -> Tensor | None:
    return None


def _no_bias_of(w: Weights, ahead: Tensor) -> Tensor | None:
    return None


@dataclass(frozen=True)
class Position:
    """A position encoding; each one uses one of the attributes.

    Tokens have the positions 0 … T−1 unless positions (K, B, T) are passed.

    Attributes:
        at_input: (weights, token embeddings (K, B, T, D), positions) → embeddings with positions.
        turn: (queries, keys (KB, H, T, d), positions) → both, rotated.
        bias: (weights, T, device) → bias of the scores, (1 or K, H, T, T), −∞ where a token may
            not attend; None for no bias.
        bias_of: (weights, position of each key minus that of each query, (K, B, T, S)) → bias of
            the scores of a causal tower, (K, B, H, T, S), without a mask; None for no bias.
    """

    at_input: Callable[[Weights, Tensor, Tensor | None], Tensor] = _same_input
    turn: Turn = _same_heads
    bias: Callable[[Weights, int, torch.device], Tensor | None] = _no_bias
    bias_of: Callable[[Weights, Tensor], Tensor | None] = _no_bias_of


def _sinusoidal(a: Architecture, tower: Tower) -> Position:
    def add_waves(w: Weights, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            return x + sinusoids(tower.max_length, a.d_model, x.device)[: x.shape[-2]].to(x)
        return x + sinusoids(tower.max_length, a.d_model, x.device)[positions].to(x)

    return Position(at_input=add_waves)


def _learned(a: Architecture, tower: Tower) -> Position:
    """Learned table of positions. Source: Radford et al. 2018 (GPT), section 4.1."""
    name = f"{tower.prefix}position_embeddings.weight"

    def add_rows(w: Weights, x: Tensor, positions: Tensor | None) -> Tensor:
        table = w[name]  # (K, longest, D)
        if positions is None:
            return x + table[:, : x.shape[-2]].unsqueeze(1)
        return x + embedding(table, positions)

    return Position(at_input=add_rows)


def _alibi(a: Architecture, tower: Tower) -> Position:
    def bias(w: Weights, length: int, device: torch.device) -> Tensor:
        longest = alibi_bias(tower.max_length, a.n_heads, device, tower.is_causal)
        return longest[..., :length, :length]

    return Position(bias=bias, bias_of=lambda _, ahead: _distance_penalty(ahead, a.n_heads))


def _relative(a: Architecture, tower: Tower) -> Position:
    name = f"{tower.prefix}relative_bias.weight"

    def bias(w: Weights, length: int, device: torch.device) -> Tensor:
        return relative_bias(w[name], length, tower.is_causal)

    def bias_of(w: Weights, ahead: Tensor) -> Tensor:
        return embedding(w[name], _buckets(ahead, is_causal=True)).movedim(-1, 2)

    return Position(bias=bias, bias_of=bias_of)


POSITIONS: Mapping[str, Callable[[Architecture, Tower], Position]] = {
    "rope": lambda a, tower: Position(
        turn=rope_both(a.rope_theta, tower.max_length, RopeScaling.of(a))
    ),
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "alibi": _alibi,
    "relative": _relative,
    # The causal mask alone distinguishes positions: Kazemnejad et al. 2023 (arXiv:2305.19466).
    "none": lambda a, tower: Position(),
}
