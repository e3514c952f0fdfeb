"""LoRA's operation against autograd on its formula, its initial values, and the merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.network import lora
from model.network.layers import linear
from model.network.lora import AdaptedBlock, change_of, initial_adapter, merge, projections
from model.randomness import DropoutMasks, mix64, uniform

K, N, R = 3, 5, 3
INS, OUTS = 8, 12


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def block(drop: DropoutMasks | None = None) -> AdaptedBlock:
    """Two maps, of which the first one is adapted, with a bias."""
    weights = {
        "a.weight": draw(1, OUTS, INS), "b.weight": draw(1, OUTS, INS, seed=1),
        "a.bias": draw(1, OUTS),
        "a.lora_A.weight": draw(K, R, INS, seed=2).requires_grad_(),
        "a.lora_B.weight": draw(K, OUTS, R, seed=3).requires_grad_(),
    }  # fmt: skip
    return AdaptedBlock(weights, torch.tensor([0.5, 2.0, 1.0]), drop, 0)


@pytest.mark.parametrize("is_together", [False, True])
def test_projection_and_gradients_are_those_of_the_formula(
    is_together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots one by one, as on a CPU, and together, as elsewhere."""
    if is_together:
        monkeypatch.setattr(lora, "_each_slot", lambda f, of_slots, shared: f(of_slots, *shared))
    masks = DropoutMasks(torch.arange(K), torch.tensor([0.0, 0.5, 0.3]))
    w, x = block(masks), draw(K, N, INS, seed=4).requires_grad_()
    y, plain = projections(w, ["a", "b"], x)
    a, b = w["a.lora_A.weight"], w["a.lora_B.weight"]
    dropped = masks(x, lora._FIRST_PLACE)
    scale = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64).view(-1, 1, 1)
    own = x @ w["a.weight"].mT + scale * (dropped @ a.mT @ b.mT) + w["a.bias"].unsqueeze(1)
    torch.testing.assert_close(y, own, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain, x @ w["b.weight"].mT)
    up = draw(K, N, OUTS, seed=5)
    for ours, expected in zip(
        torch.autograd.grad(((y + plain) * up).sum(), (x, a, b)),
        torch.autograd.grad(((own + x @ w["b.weight"].mT) * up).sum(), (x, a, b)),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_frozen_products_in_bfloat16_leave_adapters_in_float32() -> None:
    """A change that bfloat16 would round away is there."""
    x, w = torch.ones(1, 2, 16), torch.ones(1, OUTS, 16, dtype=torch.bfloat16)
    a, b = torch.full((1, 1, 16), 1 / 16), torch.full((1, OUTS, 1), 1e-3)
    weights = {"a.weight": w, "a.lora_A.weight": a, "a.lora_B.weight": b}
    y = AdaptedBlock(weights, torch.ones(1), None, 0).project("a", x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, torch.full((1, 2, OUTS), 16.001), rtol=0, atol=1e-5)


def test_merged_weights_compute_the_same() -> None:
    base = {"a.weight": draw(OUTS, INS).float(), "b.weight": draw(OUTS, INS, seed=1).float()}
    adapters = {"a.lora_A.weight": draw(R, INS).float(), "a.lora_B.weight": draw(OUTS, R).float()}
    merged, x = merge(base, adapters, 0.5), draw(1, N, INS).float()
    every = {n: w.unsqueeze(0) for n, w in {**base, **adapters}.items()}
    adapted = AdaptedBlock(every, torch.tensor([0.5]), None, 0)
    torch.testing.assert_close(
        adapted.project("a", x), linear(merged["a.weight"].unsqueeze(0), x), rtol=1e-4, atol=1e-4
    )
    assert merged["b.weight"] is base["b.weight"]


def test_initial_adapters_are_those_of_peft() -> None:
    """A is uniform in ±1/√i, of which the variance is a third; B is zero."""
    a = initial_adapter(7, "layers.0.attn.q_proj.lora_A.weight", (64, 256))
    assert a.abs().max() <= 1 / 16
    assert a.var() == pytest.approx(1 / 256 / 3, rel=0.05)
    assert not initial_adapter(7, "layers.0.attn.q_proj.lora_B.weight", (64, 256)).any()
    assert torch.equal(a, initial_adapter(7, "x.lora_A.weight", (64, 256)))
    assert not torch.equal(a, initial_adapter(8, "x.lora_A.weight", (64, 256)))


def test_uniform_numbers_are_those_of_the_generator() -> None:
    key = 2**63 + 12_345
    bits = mix64(np.arange(100, dtype=np.uint64) ^ np.uint64(key)) >> np.uint64(11)
    expected = 3.0 * (2.0**-52 * (bits.astype(np.float64) + 0.5) - 1)
    assert uniform(key, (10, 10), 3.0).flatten().numpy() == pytest.approx(expected, rel=1e-6)


def test_change_is_that_of_the_merged_weights() -> None:
    a, b, w = draw(R, INS, seed=2), draw(OUTS, R, seed=3), draw(OUTS, INS, seed=1)
    c, d, v = draw(R, OUTS, seed=4), draw(INS, R, seed=5), draw(INS, OUTS, seed=6)
    adapters = {
        "x.lora_A.weight": a, "x.lora_B.weight": b, "y.lora_A.weight": c, "y.lora_B.weight": d,
    }  # fmt: skip
    squares = {"x.weight": w.square().sum(), "y.weight": v.square().sum()}
    norm, share = change_of(adapters, squares, torch.tensor(0.5))
    every = torch.cat([each.flatten() for each in (a, b, c, d)])
    assert norm == pytest.approx(every.norm().item(), rel=1e-12)
    changed = torch.cat([(0.5 * b @ a).flatten(), (0.5 * d @ c).flatten()]).norm()
    frozen = torch.cat([w.flatten(), v.flatten()]).norm()
    assert share == pytest.approx((changed / frozen).item(), rel=1e-12)
