"""The rows of the update rule against torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.hyperparameters import SYMBOL_TABLE, Hyperparameters, derive
from model.optimizers import IDLE, OPTIMIZERS, AdamW, coefficients, stack_rows, update
from model.schedules import learning_rate

STEPS, SIZE = 50, 33

# Four slots; every row of the table differs between them.
SLOTS: list[dict[str, Any]] = [
    {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "momentum": 0.9},
    {"beta1": 0.0, "beta2": 0.999, "eps": 1e-3, "weight_decay": 0.0, "momentum": 0.0},
    {"beta1": 0.5, "beta2": 0.9, "eps": 1e-6, "weight_decay": 1.0, "momentum": 0.5},
    {"beta1": 0.99, "beta2": 0.0, "eps": 1e-2, "weight_decay": 0.01, "momentum": 0.99},
]
RATES = (0.01, 0.003, 0.05, 0.002)

REFERENCES: dict[str, Callable[[list[Tensor], Hyperparameters], torch.optim.Optimizer]] = {
    "sgd": lambda p, h: torch.optim.SGD(p, 1.0, weight_decay=h.weight_decay),
    "momentum": lambda p, h: torch.optim.SGD(
        p, 1.0, momentum=h.momentum, weight_decay=h.weight_decay
    ),
    "adam": lambda p, h: torch.optim.Adam(
        p, 1.0, (h.beta1, h.beta2), h.eps, weight_decay=h.weight_decay
    ),
    "adamw": lambda p, h: torch.optim.AdamW(
        p, 1.0, (h.beta1, h.beta2), h.eps, weight_decay=h.weight_decay
    ),
}


def rows_of(optimizer: str, slot: int, schedule: str = "cosine") -> Hyperparameters:
    rate = {"max_learning_rate": RATES[slot], "learning_rate": RATES[slot]}
    values = {**SLOTS[slot], **rate, "optimizer": optimizer, "schedule": schedule}
    return derive({**values, "total_steps": STEPS}, train_sequences=100, context_length=8)


def start(k: int, size: int = SIZE) -> Tensor:
    return torch.randn(k, size, generator=torch.Generator().manual_seed(1))


def gradient(step: int, theta: Tensor) -> Tensor:
    """Of something that is neither convex nor smooth; slots differ because their θ differ."""
    noise = torch.randn(
        theta.shape[-1], generator=torch.Generator().manual_seed(step), dtype=torch.float64
    )
    return torch.sin(3 * theta) + noise.to(theta.dtype) + 0.2 * theta


def run_rule(hs: list[Hyperparameters], theta: Tensor, decayed: int | None = None) -> list[Tensor]:
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for step in range(1, STEPS + 1):
        rows = np.array([coefficients(step, learning_rate(step, h), h) for h in hs])
        g = gradient(step, theta)
        kept = g.clone()
        theta, m, v = update(theta, m, v, g, stack_rows(rows, "cpu"), decayed)
        assert torch.equal(g, kept)
    return [theta, m, v]


def run_torch(h: Hyperparameters, theta: Tensor, decayed: int | None = None) -> Tensor:
    """One slot in float64; with `decayed`, the rest is a second parameter without decay."""
    whole = theta.double()
    parts = [whole[:decayed].clone(), whole[decayed:].clone()] if decayed else [whole.clone()]
    parameters = [torch.nn.Parameter(part) for part in parts]
    optimizers = [
        REFERENCES[h.optimizer]([p], h if i == 0 else h.model_copy(update={"weight_decay": 0.0}))
        for i, p in enumerate(parameters)
    ]
    for step in range(1, STEPS + 1):
        g = gradient(step, torch.cat(parameters).detach())
        for p, part in zip(parameters, g.split([len(p) for p in parameters]), strict=True):
            p.grad = part.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate(step, h)
            optimizer.step()
    return torch.cat(parameters).detach()


def test_every_optimizer_is_in_the_symbol_table_and_has_a_reference() -> None:
    assert set(OPTIMIZERS) == set(REFERENCES) == set(SYMBOL_TABLE["optimizer"].choices)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_equals_torch(optimizer: str, schedule: str) -> None:
    """Fifty steps of four slots with hyperparameters and learning rates of their own."""
    hs = [rows_of(optimizer, slot, schedule) for slot in range(4)]
    theta, _, _ = run_rule(hs, start(4))
    for slot, h in enumerate(hs):
        expected = run_torch(h, start(4)[slot])
        torch.testing.assert_close(theta[slot].double(), expected, rtol=1e-4, atol=1e-5)
        assert (theta[slot] - start(4)[slot]).abs().max() > 0.01


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decayed", [1, 20])
def test_optimizer_decays_a_prefix(optimizer: str, decayed: int) -> None:
    hs = [rows_of(optimizer, slot) for slot in range(4)]
    theta, _, _ = run_rule(hs, start(4), decayed)
    for slot, h in enumerate(hs):
        expected = run_torch(h, start(4)[slot], decayed)
        torch.testing.assert_close(theta[slot].double(), expected, rtol=1e-4, atol=1e-5)
    everywhere, _, _ = run_rule(hs, start(4))
    assert not torch.allclose(everywhere[0], theta[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_of_a_stack_equals_single_ones_bit_for_bit(optimizer: str) -> None:
    hs = [rows_of(optimizer, slot) for slot in range(4)]
    together = run_rule(hs, start(4), 20)
    for slot, h in enumerate(hs):
        alone = run_rule([h], start(4)[slot : slot + 1], 20)
        assert all(torch.equal(a[slot], b[0]) for a, b in zip(together, alone, strict=True))


def test_optimizers_mixed_in_a_stack_equal_single_ones_bit_for_bit() -> None:
    hs = [rows_of(name, slot) for slot in range(4) for name in OPTIMIZERS]
    together = run_rule(hs, start(16), 20)
    for slot, h in enumerate(hs):
        alone = run_rule([h], start(16)[slot : slot + 1], 20)
        assert all(torch.equal(a[slot], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_idle_slot_does_not_move_and_disturbs_nobody(optimizer: str) -> None:
    h = rows_of(optimizer, 0)
    theta, m, v = start(2), start(2) * 0.1, start(2).abs()
    row = coefficients(3, 0.01, h)
    rows, g = np.array([IDLE, row]), gradient(1, theta)
    moved, _, _ = update(theta, m, v, g, stack_rows(rows, "cpu"))
    assert torch.equal(moved[0], theta[0])
    alone, _, _ = update(theta[1:], m[1:], v[1:], g[1:], stack_rows(np.array([row]), "cpu"))
    assert torch.equal(moved[1], alone[0])


def test_stack_rows_skips_what_is_off_for_all() -> None:
    rows = np.array([coefficients(1, 0.1, rows_of("adamw", slot)) for slot in (0, 2)])
    c = stack_rows(rows, "cpu")
    assert c.coupled == 0.0
    assert c.adaptive == 1.0
    assert c.decoupled.tolist() == [[torch.tensor(0.1).item()], [1.0]]
    mixed = stack_rows(np.array([rows[0], IDLE]), "cpu")
    assert mixed.adaptive.tolist() == [[1.0], [0.0]]


PER_SLOT: dict[str, tuple[float, ...]] = {
    "lr": (0.01, 0.1, 0.001),
    "beta1": (0.9, 0.0, 0.99),
    "beta2": (0.999, 0.95, 0.5),
    "eps": (1e-8, 1e-3, 1e-5),
    "weight_decay": (0.01, 0.0, 1.0),
}


def adamw(cls: Any, parameters: Any, values: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = cls(
        parameters,
        lr=values["lr"],
        betas=(values["beta1"], values["beta2"]),
        eps=values["eps"],
        weight_decay=values["weight_decay"],
    )
    return optimizer


def descend(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    for step in range(STEPS):
        for parameter in parameters:
            flat = parameter.detach().reshape(-1, 3)
            parameter.grad = gradient(step, flat).reshape(parameter.shape)
        optimizer.step()


@pytest.mark.parametrize("slot", range(3))
def test_adamw_with_numbers_equals_torch(slot: int) -> None:
    values = {name: each[slot] for name, each in PER_SLOT.items()}
    starts = [start(2, 6).view(2, 2, 3), start(3, 3)]
    ours, theirs = ([torch.nn.Parameter(s.clone()) for s in starts] for _ in range(2))
    descend(adamw(AdamW, ours, values), ours)
    descend(adamw(torch.optim.AdamW, theirs, values), theirs)
    for a, b, s in zip(ours, theirs, starts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(a, s, atol=0.01)


def test_adamw_with_tensors_equals_torch_for_each_slot() -> None:
    values = {name: torch.tensor(each, dtype=torch.float64) for name, each in PER_SLOT.items()}
    starts = [start(3, 6).view(3, 2, 3), start(3, 3)]
    ours = [torch.nn.Parameter(s.clone()) for s in starts]
    descend(adamw(AdamW, ours, values), ours)
    for slot in range(3):
        theirs = [torch.nn.Parameter(s[slot].clone()) for s in starts]
        single = {name: each[slot] for name, each in PER_SLOT.items()}
        descend(adamw(torch.optim.AdamW, theirs, single), theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a[slot], b, rtol=1e-4, atol=1e-5)


def test_adamw_defaults_and_groups_are_those_of_torch() -> None:
    starts = [start(1, 3), start(1, 6)]
    results = []
    for cls in (AdamW, torch.optim.AdamW):
        p = [torch.nn.Parameter(s.clone()) for s in starts]
        groups = [{"params": p[:1], "weight_decay": 0.0, "lr": 0.1}, {"params": p[1:]}]
        descend(cls(groups), p)
        results.append(torch.cat([each.detach() for each in p], 1))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_adamw_skips_parameters_without_gradient_and_calls_the_closure() -> None:
    p, untouched = torch.nn.Parameter(torch.ones(1, 2)), torch.nn.Parameter(torch.ones(1, 2))
    optimizer = AdamW([p, untouched], lr=0.1)

    def closure() -> float:
        loss = p.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert torch.equal(untouched, torch.ones(1, 2))
    assert p.max() < 1


def test_adamw_state_dict_resumes_exactly() -> None:
    def fresh() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        p = [torch.nn.Parameter(start(3, 3))]
        values = {name: torch.tensor(each) for name, each in PER_SLOT.items()}
        return p, adamw(AdamW, p, values)

    (p, optimizer), (again, resumed) = fresh(), fresh()
    descend(optimizer, p)
    with torch.no_grad():
        again[0].copy_(p[0])
    resumed.load_state_dict(optimizer.state_dict())
    descend(optimizer, p)
    descend(resumed, again)
    assert torch.equal(p[0], again[0])


def test_adamw_first_step_is_the_learning_rate() -> None:
    """Kingma and Ba 2014, section 2.1: with ε → 0 the first step is α in every coordinate."""
    p = torch.nn.Parameter(torch.zeros(2, 4))
    p.grad = torch.tensor([[1e-3, -5.0, 0.2, 70.0]] * 2)
    AdamW([p], lr=torch.tensor([0.1, 0.003]), eps=1e-30, weight_decay=0.5).step()
    signs = torch.tensor([-1.0, 1.0, -1.0, -1.0])
    torch.testing.assert_close(p.detach(), torch.stack([0.1 * signs, 0.003 * signs]))
    assert math.isclose(float(p.detach()[1, 1]), 0.003, rel_tol=1e-6)
