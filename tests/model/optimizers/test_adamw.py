"""The public AdamW over stacked parameters against torch's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from model.optimizers.adamw import AdamW
from tests.model.optimizers.test_optimizers import STEPS, gradient, start

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


@pytest.mark.slow
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
