"""Keyed random numbers: one to one, uniform, and functions of their key and place."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from model.keys import derive_key
from model.randomness import DropoutMasks, mix64, permute, truncated_normal

KEYS = st.integers(0, 2**64 - 1)


def int64(key: int) -> int:
    """A 64-bit key as the engine hands it to the device."""
    return int(np.uint64(key).astype(np.int64))


def masks(seeds: list[int], probabilities: list[float]) -> DropoutMasks:
    keys = torch.tensor([int64(derive_key(seed, "test")) for seed in seeds])
    return DropoutMasks(keys, torch.tensor(probabilities))


def test_derive_key_is_the_documented_hash() -> None:
    expected = hashlib.blake2b(b"7\x1forder\x1f3", digest_size=8).digest()
    assert derive_key(7, "order", 3) == int.from_bytes(expected, "little")


def test_derive_key_differs_between_places() -> None:
    places: list[tuple[int | str, ...]] = [(), ("a",), ("b",), ("a", 1), ("a", 11), ("a", 1, 1)]
    keys = {derive_key(seed, *place) for seed in range(50) for place in places}
    assert len(keys) == 50 * len(places)
    assert all(0 <= key < 2**64 for key in keys)


def test_mix64_equals_splitmix64() -> None:
    """The first outputs of the published generator for the seed 1234567."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    step = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * step) % 2**64 for i in range(3)], np.uint64)
    assert mix64(states).tolist() == known


@given(size=st.integers(1, 3000), key=KEYS)
def test_permute_is_one_to_one(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(size=st.integers(1, 10**12), key=KEYS, places=st.lists(st.integers(0, 10**12), max_size=9))
def test_permute_needs_no_whole_permutation(size: int, key: int, places: list[int]) -> None:
    """An index goes to the same place whatever it is asked with, in any shape."""
    index = np.array([place % size for place in places], np.int64)
    together = permute(index, size, key)
    assert together.shape == index.shape
    assert ((together >= 0) & (together < size)).all()
    for i, j in zip(index, together, strict=True):
        assert permute(np.array([[i]]), size, key).tolist() == [[j]]


def test_permute_differs_between_keys() -> None:
    seen = {tuple(permute(np.arange(20), 20, derive_key(seed))) for seed in range(500)}
    assert len(seen) == 500


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 5, 16, 17])
def test_permute_sends_every_index_everywhere_equally_often(size: int) -> None:
    """Chi-square over keys, for each index; the limit is far outside chance."""
    keys = 1500
    sent = np.array([permute(np.arange(size), size, derive_key(i, "χ²")) for i in range(keys)])
    counts = np.array([np.bincount(column, minlength=size) for column in sent.T])
    chi = ((counts - keys / size) ** 2 / (keys / size)).sum(1)
    freedom = size - 1
    assert (chi < freedom + 6 * math.sqrt(2 * freedom) + 12).all()


@pytest.mark.slow
def test_permute_neighbours_do_not_stay_neighbours() -> None:
    """Follow-ups of one index: the distance between images of i and i+1 is spread out."""
    size, keys = 101, 2000
    sent = np.array([permute(np.arange(2), size, derive_key(i)) for i in range(keys)])
    counts = np.bincount((sent[:, 1] - sent[:, 0]) % size, minlength=size)
    assert counts[0] == 0
    chi = ((counts[1:] - keys / (size - 1)) ** 2 / (keys / (size - 1))).sum()
    assert chi < 99 + 6 * math.sqrt(2 * 99)


@pytest.mark.parametrize("bad", [-1, 5, 10**9])
def test_permute_refuses_an_index_outside(bad: int) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 5\)"):
        permute(np.array([0, bad]), 5, 1)


@pytest.mark.parametrize(("std", "bound"), [(1.0, 3.0), (0.02, 3.0), (2.0, 1.0)])
def test_truncated_normal_equals_scipy(std: float, bound: float) -> None:
    values = truncated_normal(derive_key(3, "w"), (400, 250), std, bound)
    assert values.dtype == torch.float32
    assert values.shape == (400, 250)
    assert values.abs().max() <= bound * std * (1 + 1e-6)
    theory = stats.truncnorm(-bound, bound, scale=std)
    n = values.numel()
    assert abs(values.mean().item()) < 5 * theory.std() / math.sqrt(n)
    assert values.double().std().item() == pytest.approx(theory.std(), rel=0.01)
    distance = stats.kstest(values.double().numpy().ravel(), theory.cdf).statistic
    assert distance < 2 / math.sqrt(n), "Kolmogorov and Smirnov's 99.9 % limit is 1.95/√n"


@pytest.mark.parametrize("key", [0, 7, 2**64 - 1])
def test_truncated_normal_inverts_the_distribution(key: int) -> None:
    """Of every integer's place in the scrambled order, also where it draws a second batch."""
    count = (1 << 18) + 50
    values = truncated_normal(key, (count,), 1.0, 2.0).double().numpy()
    for part in (slice(0, 200), slice(count - 200, count)):
        bits = mix64(np.arange(count, dtype=np.uint64)[part] ^ np.uint64(key))
        expected = stats.truncnorm(-2, 2).ppf((bits >> np.uint64(11)) * 2.0**-53)
        np.testing.assert_allclose(values[part], expected, rtol=1e-6, atol=1e-9)


def test_truncated_normal_is_a_function_of_its_key() -> None:
    first = truncated_normal(5, (3, 4), 1.0, 3.0)
    assert torch.equal(first, truncated_normal(5, (3, 4), 1.0, 3.0))
    assert torch.equal(first.flatten()[:6], truncated_normal(5, (6,), 1.0, 3.0))
    others = torch.stack([truncated_normal(derive_key(k), (10_000,), 1.0, 3.0) for k in range(8)])
    correlation = torch.corrcoef(others) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_dropout_drops_the_requested_share_and_keeps_the_mean(probability: float) -> None:
    n = 200_000
    (y,) = masks([1], [probability])(torch.ones(1, 200, n // 200), 3)
    dropped = (y == 0).double().mean().item()
    sigma = math.sqrt(probability * (1 - probability) / n)
    assert abs(dropped - probability) < 5 * sigma
    assert abs(y.double().mean().item() - 1) < 5 * sigma / (1 - probability)
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - probability)))


def test_dropout_of_zero_is_the_identity_bit_for_bit() -> None:
    """In a slot whose neighbours drop, too."""
    x = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0))
    x[1, 0] = torch.tensor([0.0, -0.0, 1e-40, -1e38, 3e38, math.inf, -math.inf])
    y = masks([1, 2, 3], [0.5, 0.0, 0.9])(x, 0)
    assert torch.equal(y[1].view(torch.int32), x[1].view(torch.int32))
    assert not torch.equal(y[0], x[0])


def kept(seed: int, place: int, n: int = 40_000, probability: float = 0.5) -> torch.Tensor:
    return (masks([seed], [probability])(torch.ones(1, n), place)[0] != 0).double()


def test_dropout_masks_of_places_and_keys_are_uncorrelated() -> None:
    n = 40_000
    rows = torch.stack([kept(seed, place, n) for seed in range(4) for place in range(6)])
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 5.5 / math.sqrt(n)


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 256, 4096])
def test_dropout_masks_of_neighbouring_elements_are_uncorrelated(lag: int) -> None:
    n = 40_000
    mask = kept(1, 2, n)
    (both,) = torch.corrcoef(torch.stack([mask[:-lag], mask[lag:]]))[0, 1:]
    assert abs(both) < 5 / math.sqrt(n - lag)


def test_dropout_masks_are_keyed() -> None:
    """The same key gives the same mask, in any slot, and a bit more or less gives another."""
    x = torch.ones(2, 1000)
    first = masks([4, 5], [0.3, 0.3])(x, 1)
    assert torch.equal(first.flip(0), masks([5, 4], [0.3, 0.3])(x, 1))
    keys = torch.tensor([0, *(int64(1 << bit) for bit in [*range(32), 63])])
    different = DropoutMasks(keys, torch.full((34,), 0.5))(torch.ones(34, 1000), 0)
    assert len({tuple(row.tolist()) for row in different}) == 34


def test_dropout_passes_gradients_through_the_same_mask() -> None:
    x = torch.ones(2, 100, requires_grad=True)
    drop = masks([1, 2], [0.4, 0.0])
    y = drop(x, 0)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
