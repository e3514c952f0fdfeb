"""Gradual magnitude pruning: the cubic schedule, and its effect on a row of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.optimizers.pruning import KEEP, OFF, mask_, prune_, pruning_of, sparsity, target_sparsity
from model.spec.derive import derive
from model.spec.hyperparameters import Hyperparameters


def rows(**values: Any) -> Hyperparameters:
    entries = {"target_sparsity": 0.8, "prune_start_steps": 20, "prune_end_steps": 60}
    entries |= {"prune_interval_steps": 15, "total_steps": 100, **values}
    return derive(entries, train_sequences=100, context_length=8)


def test_target_rises_as_a_cubic() -> None:
    """Zhu and Gupta 2017, equation 1."""
    h = rows()
    for t in range(20, 61):
        assert target_sparsity(t, h) == pytest.approx(0.8 + (0 - 0.8) * (1 - (t - 20) / 40) ** 3)
    assert [target_sparsity(t, h) for t in (1, 19, 20, 60, 61, 100)] == [0, 0, 0, 0.8, 0.8, 0.8]


def test_pruning_happens_at_its_interval_and_at_the_end() -> None:
    h = rows()
    events = {t: pruning_of(t, h) for t in range(1, 101) if pruning_of(t, h) > 0}
    assert list(events) == [35, 50, 60]
    assert events[60] == 0.8
    assert {pruning_of(t, h) for t in range(1, 20)} == {OFF}
    assert {pruning_of(t, h) for t in range(61, 101)} == {KEEP}
    assert {pruning_of(t, rows(target_sparsity=0)) for t in range(1, 101)} == {OFF}


def test_pruning_at_once() -> None:
    h = rows(prune_start_steps=30, prune_end_steps=30)
    assert [pruning_of(t, h) for t in (29, 30, 31)] == [OFF, 0.8, KEEP]


def test_prune_takes_the_smallest_of_each_matrix() -> None:
    theta = torch.tensor([3.0, -1.0, 2.0, -4.0, 9.0, 0.1, -0.2, 0.3, 0.4, 7.0])
    prune_(theta, 0.5, [slice(0, 4), slice(5, 9)])
    expected = torch.tensor([3.0, 0.0, 0.0, -4.0, 9.0, 0.0, 0.0, 0.3, 0.4, 7.0])
    assert torch.equal(theta, expected)
    assert sparsity(theta, [slice(0, 4), slice(5, 9)]) == 0.5
    prune_(theta, 0.1, [slice(0, 4)])
    assert torch.equal(theta, expected), "rounds to no weight"


def test_mask_touches_its_slots_and_parts_only() -> None:
    x, theta = torch.ones(3, 4), torch.tensor([[0.0, 1, 0, 0]] * 3)
    mask_(x, theta, [1], (slice(0, 3),))
    assert x.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]]
