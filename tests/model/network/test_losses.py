"""Loss and clipping against those of torch, slot by slot."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model.network.losses import clip_grads_, cross_entropy

VOCAB = 11


def batch(
    k: int, *shape: int, scale: float = 3.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(shape))
    logits = (torch.randn(k, *shape, VOCAB, generator=generator) * scale).to(dtype)
    return logits.requires_grad_(), torch.randint(VOCAB, (k, *shape), generator=generator)


def reference(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """One slot, in float64."""
    return torch.nn.functional.cross_entropy(
        logits.double().reshape(-1, VOCAB), targets.reshape(-1), label_smoothing=smoothing
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e4])
@pytest.mark.parametrize("smoothing", [None, 0.2, (0.0, 0.1, 0.9)])
@pytest.mark.parametrize("shape", [(6,), (4, 5)])
def test_cross_entropy_and_gradient_equal_torch(
    dtype: torch.dtype,
    scale: float,
    smoothing: float | tuple[float, ...] | None,
    shape: tuple[int, ...],
) -> None:
    logits, targets = batch(3, *shape, scale=scale, dtype=dtype)
    each = smoothing if isinstance(smoothing, tuple) else (smoothing or 0.0,) * 3
    smoothing_tensor = torch.tensor(smoothing) if isinstance(smoothing, tuple) else smoothing
    loss = cross_entropy(logits, targets, smoothing_tensor)
    expected = torch.stack([reference(logits[k], targets[k], each[k]) for k in range(3)])
    assert loss.shape == (3,)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=2e-6)
    up = torch.tensor([1.0, 0.0, -2.5])
    (actual,) = torch.autograd.grad(loss, logits, up)
    (expected_grad,) = torch.autograd.grad(expected, logits, up.double())
    assert actual.dtype == dtype
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(actual, expected_grad, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("smoothing", [None, (0.0, 0.1, 0.9)])
@pytest.mark.parametrize("z_loss", [0.3, (0.0, 1e-4, 1.0)])
def test_z_loss_and_gradient_equal_autograd(
    smoothing: tuple[float, ...] | None, z_loss: float | tuple[float, ...]
) -> None:
    logits, targets = batch(3, 4, 5)
    each = z_loss if isinstance(z_loss, tuple) else (z_loss,) * 3
    loss = cross_entropy(
        logits,
        targets,
        None if smoothing is None else torch.tensor(smoothing),
        torch.tensor(z_loss),
    )
    expected = torch.stack(
        [
            reference(logits[k], targets[k], (smoothing or (0.0,) * 3)[k])
            + each[k] * logits[k].double().logsumexp(-1).square().mean()
            for k in range(3)
        ]
    )
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=2e-6)
    up = torch.tensor([1.0, 0.5, -2.5])
    (actual,) = torch.autograd.grad(loss, logits, up)
    (expected_grad,) = torch.autograd.grad(expected, logits, up.double())
    torch.testing.assert_close(actual, expected_grad, rtol=1e-5, atol=1e-6)


def test_z_loss_of_a_neighbour_changes_no_bits() -> None:
    logits, targets = batch(2, 4, 5)
    alone = cross_entropy(logits, targets)
    mixed = cross_entropy(logits, targets, None, torch.tensor([0.0, 1.0]))
    assert alone[0] == mixed[0]
    assert alone[1] < mixed[1]
    up = torch.ones(2)
    a, b = (torch.autograd.grad(loss, logits, up)[0] for loss in (alone, mixed))
    assert torch.equal(a[0], b[0])
    with pytest.raises(ValueError, match="z_loss must be one number or 2, got"):
        cross_entropy(logits, targets, None, torch.ones(3))


def test_cross_entropy_of_one_slot_is_the_same_in_a_stack() -> None:
    logits, targets = batch(3, 4, 5)
    smoothing = torch.tensor([0.0, 0.3, 0.1])
    together = cross_entropy(logits, targets, smoothing)
    for k in range(3):
        alone = cross_entropy(logits[k : k + 1], targets[k : k + 1], float(smoothing[k]))
        assert torch.equal(alone[0], together[k])


def test_cross_entropy_without_information_is_log_of_the_vocabulary() -> None:
    loss = cross_entropy(torch.zeros(2, 3, VOCAB), torch.zeros(2, 3, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.full((2,), math.log(VOCAB)))


def test_cross_entropy_survives_logits_that_overflow_exp() -> None:
    logits = torch.tensor([[[3e38, 0.0, -3e38]]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[0]]))
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))


def test_cross_entropy_refuses_a_second_backward() -> None:
    """The gradient overwrites the values that a second one needs; it must raise."""
    logits, targets = batch(2, 4)
    loss = cross_entropy(logits, targets).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 1), (2, 4), (4,), ()])
def test_cross_entropy_refuses_targets_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="targets must have the shape"):
        cross_entropy(torch.zeros(3, 4, VOCAB), torch.zeros(shape, dtype=torch.int64))


def test_cross_entropy_refuses_smoothing_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"one number or 3, got \(2,\)"):
        cross_entropy(
            torch.zeros(3, 4, VOCAB), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(2)
        )


def gradients(k: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    size = torch.tensor([0.01, 1.0, 300.0])[:k]
    shapes = [(7,), (2, 3), (), (4, 1, 5)]
    return [
        torch.randn(k, *shape, generator=generator) * size.view(-1, *[1] * len(shape))
        for shape in shapes
    ]


@pytest.mark.parametrize("limits", [1.0, (0.5, 0.5, 0.5), (1e-3, 100.0, 7.0)])
def test_clip_grads_equals_torch_for_each_slot(limits: float | tuple[float, ...]) -> None:
    grads = gradients(3)
    before = [grad.clone() for grad in grads]
    each = limits if isinstance(limits, tuple) else (limits,) * 3
    norms = clip_grads_(grads, torch.tensor(limits) if isinstance(limits, tuple) else limits)
    for k in range(3):
        parameters = [torch.nn.Parameter(torch.zeros_like(grad[k])) for grad in before]
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad[k].clone()
        norm = torch.nn.utils.clip_grad_norm_(parameters, each[k])
        torch.testing.assert_close(norms[k], norm)
        for parameter, grad in zip(parameters, grads, strict=True):
            # torch divides by norm + 1e-6
            room = 1e-5 + 1e-6 / float(norm)
            torch.testing.assert_close(grad[k], parameter.grad, rtol=room, atol=1e-8)
        clipped = torch.cat([grad[k].flatten() for grad in grads]).norm()
        torch.testing.assert_close(clipped, norm.clamp(max=each[k]))


@pytest.mark.parametrize("limit", [math.inf, 1e6])
def test_clip_grads_below_the_limit_changes_no_bit(limit: float) -> None:
    grads = gradients(3)
    before = [grad.clone() for grad in grads]
    clip_grads_(grads, torch.tensor([limit, limit, limit]))
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))


def test_clip_grads_without_limit_keeps_gradients_whose_norm_overflows() -> None:
    grads = [torch.full((1, 4), 1e30)]
    assert clip_grads_(grads, math.inf).tolist() == [math.inf]
    assert torch.equal(grads[0], torch.full((1, 4), 1e30))


def test_clip_grads_of_zero_is_zero() -> None:
    grads = [torch.zeros(2, 3)]
    assert clip_grads_(grads, torch.tensor([1.0, 0.0])).tolist() == [0, 0]
    assert torch.equal(grads[0], torch.zeros(2, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_grads_isolates_non_finite_slot(bad: float) -> None:
    grads = gradients(3)
    alone = [grad[1:2].clone() for grad in grads]
    grads[0][0, 0] = bad
    norms = clip_grads_(grads, 0.5)
    norm = clip_grads_(alone, 0.5)
    assert not norms[0].isfinite()
    assert torch.equal(norms[1], norm[0])
    assert all(torch.equal(a[1], b[0]) for a, b in zip(grads, alone, strict=True))


def test_clip_grads_works_in_bfloat16() -> None:
    grads = [torch.full((1, 64), 2.0, dtype=torch.bfloat16)]
    assert clip_grads_(grads, 1.0).tolist() == [16.0]
    assert torch.equal(grads[0], torch.full((1, 64), 0.125, dtype=torch.bfloat16))


@pytest.mark.parametrize("limits", [torch.ones(2), torch.ones(4)])
def test_clip_grads_refuses_limits_of_another_length(limits: Tensor) -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        clip_grads_(gradients(3), limits)
