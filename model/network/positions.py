"""How a token knows where it stands, and a registry of the ways.

K = slots in a stack, B = sequences, T = tokens, S = tokens that are seen, D = width, H = heads,
d = width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from model.device.precision import exact_device
from model.network.layers import Weights, embedding
from model.spec.architecture import RELATIVE_BUCKETS, Architecture, Tower

# queries and keys (KB, H, T, d) of the same tokens, and where these stand, (K, B, T) or (T,), in
# place of 0 … T−1 → the same, turned
Turn = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
_FARTHEST = 128  # distance from which on all are in the last bucket of the relative bias


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
    turns = _turns(token_positions, x.shape[-1], theta)
    while 3 < turns.dim() <= x.dim():  # (K, B, T) positions meet (K, B, H, T, d) queries
        turns = turns.unsqueeze(-3)
    return _rotate(x, turns)


def rope_both(theta: float, longest: int | None = None) -> Turn:
    """What turns queries and keys of the same tokens, (KB, H, T, d) each.

    Args:
        theta: base of the angles.
        longest: number of positions that there are, of which a table is made if tokens stand
            anywhere; None: their angles are computed.
    """

    def turn(q: Tensor, k: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        length, d = q.shape[-2:]
        if at is None:
            turns = _default_turns(longest or length, d, theta, q.device)[:, :length]  # (2, T, d)
        elif longest is None:
            turns = _turns(at, d, theta)
        else:
            turns = _default_turns(longest, d, theta, q.device)[:, at]
        if turns.dim() > 3:  # (2, K, B, T, d) → (2, KB, 1, T, d)
            turns = turns.flatten(1, 2).unsqueeze(2)
        return _rotate(q, turns), _rotate(k, turns)

    return turn


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) of (..., T, d), at least in float32, by its angle.

    As x·cos + x′·(∓sin), where x′ has the two of each pair swapped. Complex numbers would be
    faster, but where a product of theirs lies in memory is part of its rounding.

    Args:
        x: (..., T, d), any floating dtype.
        turns: of `_turns`.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    swapped = wide.view(*x.shape[:-1], -1, 2).flip(-1).view(x.shape)
    cos, sin = turns.to(wide.dtype)
    turned: Tensor = wide * cos + swapped * sin
    return turned.to(x.dtype)


def _turns(positions: Tensor, d: int, theta: float) -> Tensor:
    """What `_rotate` multiplies with: cosines, and sines with their signs, (2, ..., T, d)."""
    cos, sin = _angles(positions, d, theta)
    both = torch.stack((cos, cos), -1), torch.stack((-sin, sin), -1)
    return torch.stack([pair.flatten(-2) for pair in both])


def _angles(positions: Tensor, d: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position·theta^(−2i/d), computed in float64, (..., T, d/2) float32."""
    device = exact_device(positions.device)
    exponent = torch.arange(0, d, 2, dtype=torch.float64, device=device) / d
    angle = positions.to(device).double().unsqueeze(-1) * theta**-exponent
    return angle.cos().float().to(positions.device), angle.sin().float().to(positions.device)


@cache
def _default_turns(length: int, d: int, theta: float, device: torch.device) -> Tensor:
    """Of positions 0 … length−1, (2, T, d) float32."""
    with torch.inference_mode(False):  # what is kept must serve training as well
        return _turns(torch.arange(length, device=device), d, theta)


@cache
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


def _ahead(length: int, device: torch.device) -> Tensor:
    """How far each key lies ahead of each query, (T, T) int64, negative for earlier ones."""
    at = torch.arange(length, device=device)
    return at - at.unsqueeze(-1)


@cache
def alibi_bias(length: int, num_heads: int, device: torch.device, is_causal: bool = True) -> Tensor:
    """What is added to the scores: −slope·distance, (1, H, T, T) float32.

    Later tokens get −∞ if attention is causal; otherwise they are as far as earlier ones.
    """
    with torch.inference_mode(False):
        ahead = _ahead(length, device)
        bias = _forgetting(ahead, num_heads)  # (H, T, T)
        if is_causal:
            bias = bias.masked_fill(ahead > 0, -math.inf)
        return bias.unsqueeze(0)


def _forgetting(ahead: Tensor, num_heads: int) -> Tensor:
    """−slope·distance of each head, (..., T, S) → (..., H, T, S) float32."""
    device = exact_device(ahead.device)
    slopes = torch.tensor(alibi_slopes(num_heads), dtype=torch.float64, device=device)
    distance = ahead.abs().unsqueeze(-3).to(device)
    return (slopes.view(-1, 1, 1) * -distance).float().to(ahead.device)


@cache
def relative_buckets(length: int, device: torch.device, is_causal: bool) -> Tensor:
    """Which bucket the distance of each key from each query belongs to, (T, T) int64."""
    with torch.inference_mode(False):
        return _buckets(_ahead(length, device), is_causal)


def _buckets(ahead: Tensor, is_causal: bool) -> Tensor:
    """Which bucket each distance belongs to, int64.

    Half of the buckets are for one distance each, the others widen logarithmically up to a
    distance of 128; where attention is not causal, half of all are for later tokens.

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
    """A learned number for each head and bucket of distances, added to the scores.

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


def _same_input(w: Weights, x: Tensor, at: Tensor | None) -> Tensor:
    return x


def _same_heads(q: Tensor, k: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor]:
    return q, k


def _no_bias(w: Weights, length: int, device: torch.device) -> Tensor | None:
    return None


def _no_bias_of(w: Weights, ahead: Tensor) -> Tensor | None:
    return None


@dataclass(frozen=True)
class Position:
    """Where positions enter; each way uses one of the three.

    Tokens stand at 0 … T−1 unless it is said where, (K, B, T).

    Attributes:
        at_input: (weights, token embeddings (K, B, T, D), where) → the same with positions.
        turn: queries and keys (KB, H, T, d), and where → the same, turned.
        bias: (weights, T, device) → bias of the scores, (1 or K, H, T, T), −∞ where a token may
            not attend; None for no bias.
        bias_of: (weights, how far each key lies ahead of each query, (K, B, T, S)) → bias of the
            scores of a causal tower, (K, B, H, T, S), without regard to who may attend; None for
            no bias.
    """

    at_input: Callable[[Weights, Tensor, Tensor | None], Tensor] = _same_input
    turn: Turn = _same_heads
    bias: Callable[[Weights, int, torch.device], Tensor | None] = _no_bias
    bias_of: Callable[[Weights, Tensor], Tensor | None] = _no_bias_of


def _sinusoidal(a: Architecture, tower: Tower) -> Position:
    def add_waves(w: Weights, x: Tensor, at: Tensor | None) -> Tensor:
        if at is None:
            return x + sinusoids(tower.max_length, a.d_model, x.device)[: x.shape[-2]].to(x)
        return x + sinusoids(tower.max_length, a.d_model, x.device)[at].to(x)

    return Position(at_input=add_waves)


def _learned(a: Architecture, tower: Tower) -> Position:
    """A table of positions. Source: Radford et al. 2018 (GPT), section 4.1."""
    name = f"{tower.prefix}position_embeddings.weight"

    def add_rows(w: Weights, x: Tensor, at: Tensor | None) -> Tensor:
        table = w[name]  # (K, longest, D)
        if at is None:
            return x + table[:, : x.shape[-2]].unsqueeze(1)
        return x + embedding(table, at)

    return Position(at_input=add_rows)


def _alibi(a: Architecture, tower: Tower) -> Position:
    def bias(w: Weights, length: int, device: torch.device) -> Tensor:
        whole = alibi_bias(tower.max_length, a.n_heads, device, tower.is_causal)
        return whole[..., :length, :length]

    return Position(bias=bias, bias_of=lambda _, ahead: _forgetting(ahead, a.n_heads))


def _relative(a: Architecture, tower: Tower) -> Position:
    name = f"{tower.prefix}relative_bias.weight"

    def bias(w: Weights, length: int, device: torch.device) -> Tensor:
        return relative_bias(w[name], length, tower.is_causal)

    def bias_of(w: Weights, ahead: Tensor) -> Tensor:
        return embedding(w[name], _buckets(ahead, is_causal=True)).movedim(-1, 2)

    return Position(bias=bias, bias_of=bias_of)


POSITIONS: Mapping[str, Callable[[Architecture, Tower], Position]] = {
    "rope": lambda a, tower: Position(turn=rope_both(a.rope_theta, tower.max_length)),
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "alibi": _alibi,
    "relative": _relative,
    # The causal mask alone tells positions apart: Kazemnejad et al. 2023 (arXiv:2305.19466).
    "none": lambda a, tower: Position(),
}
