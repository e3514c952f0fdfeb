"""Keyed random numbers: every draw is a function of a key and a place, not of earlier draws.

A checkpoint therefore needs no generator state, and the numbers of a slot cannot depend on the
draws of its neighbours. Keys are derived on the host. Dropout masks are computed on the device by
integer arithmetic, so that every kind of device gives the same masks. Initial weights are drawn on
the device that needs them: otherwise a GPU would wait for the host whenever a slot is refilled.

SplitMix64's finaliser is written twice. `mix64` serves the data order and the token noise, which
NumPy computes on the host in uint64. `_mix64_tensor` serves the initial weights, on the device:
torch has no shifts of uint64, so that it computes the same bits in int64. A test compares the two.

K = slots of a stack.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UInt64s = npt.NDArray[np.uint64]

_CHUNK = 1 << 18  # values drawn at a time: they fit into the cache of a CPU core
_ROUNDS = 6  # of the Feistel network; four already pass the usual statistical tests


def mix64(x: UInt64s) -> UInt64s:
    """Scramble 64-bit integers by a bijection.

    Source: Steele, Lea, Flood 2014, SplitMix64's finaliser (doi:10.1145/2660193.2660195).
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """Map each index by a keyed permutation of 0 … size−1, without building the permutation.

    A Feistel network permutes the smallest even power of two that holds `size`; results outside
    [0, size) are permuted again until they are inside (cycle walking).

    Below a size of about 50 not all permutations are equally likely over random keys, because the
    halves of so few bits have few functions: one index is mapped to each place equally often, but
    two indices together are not (up to about 15), and even and odd permutations differ in number
    (of 16 elements all are even). So trials on so few sequences see some orders more often than
    others. Recorded trials depend on these bits, which therefore stay as they are.

    Args:
        index: any shape, int64 in [0, size).
        size: length of the permutation, at least 1.
        key: 64-bit key.

    Returns:
        Images of the indices, in their shape, int64 in [0, size).

    Raises:
        ValueError: if an index is outside [0, size).

    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 2.
    """
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(f"an index is outside [0, {size})")
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    round_keys = mix64(np.uint64(key) + np.arange(_ROUNDS, dtype=np.uint64))
    values = index.astype(np.uint64).reshape(-1)
    outside = np.arange(values.size)
    while outside.size:
        left, right = values[outside] >> half, values[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix64(right ^ round_key) & mask)
        values[outside] = (left << half) | right
        outside = outside[values[outside] >= size]
    return values.astype(np.int64).reshape(index.shape)


def truncated_normal(
    key: int, shape: tuple[int, ...], std: float, bound: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw from a normal distribution with mean 0, truncated to [−bound·std, bound·std].

    Args:
        key: 64-bit key.
        shape: of the result.
        std: standard deviation before truncation.
        bound: limit, in standard deviations.
        device: a device that computes in float64.

    Returns:
        float32, of `shape`. Computed in float64 by inverting the distribution function.
    """
    values = torch.empty(math.prod(shape), device=device)
    tail = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64)).item()
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        counter = torch.arange(start, start + len(part), device=device)
        bits = _logical_shift(_mix64_tensor(counter ^ _signed(key)), 11)
        uniform = (bits.double() + 0.5) * 2.0**-53
        normal = torch.special.ndtri(tail + uniform * (1 - 2 * tail)).clamp(-bound, bound)
        part.copy_(normal * std)
    return values.view(shape)


def uniform(
    key: int, shape: tuple[int, ...], bound: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw uniformly from (−bound, bound).

    Args:
        key: 64-bit key.
        shape: of the result.
        bound: limit.
        device: a device that computes in float64.

    Returns:
        float32, of `shape`, computed in float64.
    """
    counter = torch.arange(math.prod(shape), device=device)
    bits = _logical_shift(_mix64_tensor(counter ^ _signed(key)), 11)
    return (bound * (2.0**-52 * (bits.double() + 0.5) - 1)).float().view(shape)


def _mix64_tensor(x: Tensor) -> Tensor:
    """Return the bits of `mix64` as int64, for int64 of the same bits.

    Sums and products of int64 wrap around to the same bits as those of uint64; right shifts need a
    mask, because they copy the sign.
    """
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _logical_shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _logical_shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, count: int) -> Tensor:
    """Shift int64 to the right and fill with zeros instead of copies of the sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def _signed(x: int) -> int:
    """Return the int64 that has the bits of a uint64."""
    return x - (1 << 64) if x >> 63 else x


def _mix32(x: Tensor) -> Tensor:
    """Scramble int32 by a bijection; masks make the right shifts logical.

    Source: Wellons 2018, "Prospecting for hash functions", lowbias32.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


class DropoutMasks:
    """Dropout masks for one tick of a stack: functions of a slot's key, the place and the element.

    Args:
        keys: (K,) int64, one per slot, made from (trial seed, update, tick).
        probability: (K,) float32, probability of dropping, in [0, 1).
    """

    def __init__(self, keys: Tensor, probability: Tensor) -> None:
        self._low = (keys & 0xFFFFFFFF).to(torch.int32)  # (K,)
        self._high = (keys >> 32).to(torch.int32)  # (K,)
        # An element is kept if its random int32 is at or above the threshold; −2³¹ keeps all.
        threshold = torch.round(probability * 2.0**32).to(torch.int64) - 2**31
        self._threshold = threshold.clamp(max=2**31 - 1).to(torch.int32)  # (K,)
        self._scale = 1.0 / (1.0 - probability)  # (K,)

    @property
    def num_slots(self) -> int:
        """Number of slots, K."""
        return len(self._scale)

    def __call__(self, x: Tensor, place: int) -> Tensor:
        """Drop elements of `x`, (K, ...), and scale the others by 1/(1−p).

        A slot with p = 0 gets its values back bit for bit, whatever p its neighbours have.
        """
        column = (-1, *[1] * (x.dim() - 1))
        counter = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        element = _mix32(counter + place * 0x3C6EF35F).view(1, *x.shape[1:])
        bits = _mix32(element ^ self._low.view(column)) ^ self._high.view(column)
        keep = bits >= self._threshold.view(column)
        scaled: Tensor = x * (keep * self._scale.view(column)).to(x.dtype)
        return scaled
