"""Keyed random numbers: every draw is a function of a key and a place, never of a history.

A checkpoint therefore needs no generator state, and a slot's numbers cannot depend on what its
neighbours drew. Keys are made on the host; masks are made on the device by integer arithmetic,
so that every kind of device gives the same ones. Initial weights are drawn where they are needed:
a GPU whose slot is refilled would wait for the host.

K = slots of a stack.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UInt64s = npt.NDArray[np.uint64]

_AT_A_TIME = 1 << 18  # values drawn, which fit into a cache
_ROUNDS = 6  # of the Feistel network; four already pass the usual statistical tests


def mix64(x: UInt64s) -> UInt64s:
    """Scramble 64-bit integers one to one.

    Source: Steele, Lea, Flood 2014, SplitMix64's finaliser (doi:10.1145/2660193.2660195).
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """Where a keyed permutation of 0 … size−1 sends each index, without building the permutation.

    A Feistel network permutes the smallest even power of two that holds `size`; values that
    fall outside are sent through again until they are inside (cycle walking).

    Args:
        index: any shape, int64 in [0, size).
        size: length of the permutation, at least 1.
        key: 64-bit key.

    Returns:
        The same shape, int64 in [0, size), one to one.

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
    """Normal values with mean 0, cut to [−bound·std, bound·std].

    Args:
        key: 64-bit key.
        shape: of the result.
        std: standard deviation before the cut.
        bound: where to cut, in standard deviations.
        device: where to draw; one that computes in float64.

    Returns:
        float32, the shape asked for. Computed in float64 by inverting the distribution.
    """
    values = torch.empty(math.prod(shape), device=device)
    tail = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64)).item()
    for start in range(0, len(values), _AT_A_TIME):
        part = values[start : start + _AT_A_TIME]
        counter = torch.arange(start, start + len(part), device=device)
        bits = _logical_shift(_mix64(counter ^ _signed(key)), 11)
        uniform = (bits.double() + 0.5) * 2.0**-53
        normal = torch.special.ndtri(tail + uniform * (1 - 2 * tail)).clamp(-bound, bound)
        part.copy_(normal * std)
    return values.view(shape)


def _mix64(x: Tensor) -> Tensor:
    """As `mix64`, of int64 with the same bits."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _logical_shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _logical_shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, count: int) -> Tensor:
    """Of int64 to the right, without the copies of its sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def _signed(x: int) -> int:
    """The int64 that has the bits of a uint64."""
    return x - (1 << 64) if x >> 63 else x


def _mix32(x: Tensor) -> Tensor:
    """Scramble int32 one to one; shifts are made logical by masking the sign's copies.

    Source: Wellons 2018, "Prospecting for hash functions", lowbias32.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


class DropoutMasks:
    """Masks for one tick of a stack: a function of each slot's key, the place and the element.

    Args:
        keys: (K,) int64, one per slot, made from (trial seed, update, tick).
        probability: (K,) float32, probability of dropping, in [0, 1).
    """

    def __init__(self, keys: Tensor, probability: Tensor) -> None:
        self._low = (keys & 0xFFFFFFFF).to(torch.int32)  # (K,)
        self._high = (keys >> 32).to(torch.int32)  # (K,)
        # keep an element whose int32 is at or above the threshold: −2³¹ keeps all
        threshold = torch.round(probability * 2.0**32).to(torch.int64) - 2**31
        self._threshold = threshold.clamp(max=2**31 - 1).to(torch.int32)  # (K,)
        self._scale = 1.0 / (1.0 - probability)  # (K,)

    @property
    def num_slots(self) -> int:
        """K."""
        return len(self._scale)

    def __call__(self, x: Tensor, place: int) -> Tensor:
        """Drop elements of `x`, (K, ...), and scale the rest by 1/(1−p).

        With p = 0 the values of a slot come back bit for bit, whatever its neighbours drop.
        """
        column = (-1, *[1] * (x.dim() - 1))
        counter = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        element = _mix32(counter + place * 0x3C6EF35F).view(1, *x.shape[1:])
        bits = _mix32(element ^ self._low.view(column)) ^ self._high.view(column)
        keep = bits >= self._threshold.view(column)
        scaled: Tensor = x * (keep * self._scale.view(column)).to(x.dtype)
        return scaled
