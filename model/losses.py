"""Losses and gradient clipping, one value per slot.

K = slots in a stack, N = targets of a slot, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class _SmoothedNll(torch.autograd.Function):
    """Cross-entropy against smoothed targets; the gradient reuses the memory of log p.

    With plain autograd the logits' gradient would be three tensors of the size of the logits,
    which is the largest tensor of a small language model.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        smoothing: Tensor | None,
        z_weight: Tensor | None,
        share: Tensor | None,
    ) -> Tensor:
        log_p = torch.log_softmax(logits, -1, dtype=torch.float32)  # (K, N, V)
        nll = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (K, N)
        if smoothing is not None:
            nll = (1 - smoothing) * nll - smoothing * log_p.mean(-1)
        slope = None
        if z_weight is not None:
            log_z = torch.logsumexp(logits.float(), -1)  # (K, N)
            nll = torch.where(z_weight > 0, nll + z_weight * log_z.square(), nll)
            slope = torch.where(z_weight > 0, 1 + 2 * z_weight * log_z, 1.0)  # of log Z, (K, N)
        ctx.save_for_backward(log_p, targets, smoothing, slope, share)
        ctx.logits_dtype = logits.dtype
        return nll.mean(-1) if share is None else (nll * share).sum(-1)  # (K,)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        log_p, targets, smoothing, slope, share = ctx.saved_tensors
        if share is None:
            each = (grads[0] / targets.shape[1]).view(-1, 1, 1)  # (K, 1, 1)
        else:
            each = (grads[0].view(-1, 1) * share).unsqueeze(-1)  # (K, N, 1)
        through_z = each if slope is None else each * slope.unsqueeze(-1)
        grad = log_p.exp_().mul_(through_z)  # (K, N, V); a second backward would need log p again
        true = each if smoothing is None else each * (1 - smoothing).unsqueeze(-1)
        grad.scatter_add_(-1, targets.unsqueeze(-1), -true.expand(*targets.shape, 1))
        if smoothing is not None:
            grad.sub_(each * smoothing.unsqueeze(-1) / grad.shape[-1])
        return grad.to(ctx.logits_dtype), None, None, None, None


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: Tensor | float | None = None,
    z_loss: Tensor | float | None = None,
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Mean cross-entropy in nats per token, one value per slot.

    −Σ_v ((1−ε_ls)·[v = y] + ε_ls/V)·log p_v + λ_z·log²Z, averaged over the tokens of a slot. May
    be differentiated once.

    Args:
        logits: (K, ..., V), floating.
        targets: (K, ...), int64 in [0, V).
        label_smoothing: ε_ls, probability spread evenly over the vocabulary, (K,) or a number.
        z_loss: λ_z, weight of log²Z with Z = Σ_v exp(logit_v), (K,) or a number.
        ignore_index: a target that takes no part; None: all do. A slot without any other is NaN.

    Returns:
        (K,), float32.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Szegedy et al. 2016, section 7 (arXiv:1512.00567); the z-loss of Chowdhery et al. 2022,
    section 5 (arXiv:2204.02311).
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets must have the shape of the logits without the last dimension, got "
            f"{tuple(targets.shape)} and {tuple(logits.shape)}"
        )
    slots = logits.shape[0]
    smoothing = _column("label_smoothing", label_smoothing, slots, logits.device)
    z_weight = _column("z_loss", z_loss, slots, logits.device)
    flat, true = logits.reshape(slots, -1, logits.shape[-1]), targets.reshape(slots, -1)
    share = None
    if ignore_index is not None:
        is_asked = true != ignore_index  # (K, N)
        share = is_asked / is_asked.sum(-1, keepdim=True)
        true = true.where(is_asked, 0)
    loss: Tensor = _SmoothedNll.apply(  # type: ignore[no-untyped-call]
        flat, true, smoothing, z_weight, share
    )
    return loss


def _column(
    name: str, value: Tensor | float | None, slots: int, device: torch.device
) -> Tensor | None:
    """One number per slot, (K, 1) float32."""
    if value is None:
        return None
    given = torch.as_tensor(value, dtype=torch.float32, device=device)
    if given.shape not in {(), (1,), (slots,)}:
        raise ValueError(f"{name} must be one number or {slots}, got {tuple(given.shape)}")
    return given.expand(slots).view(slots, 1)


def clip_grads_(grads: Iterable[Tensor], max_norm: Tensor | float) -> Tensor:
    """Scale each slot's gradients in place so that their global norm is at most `max_norm`.

    g ← g·min(1, τ/‖g‖), the norm taken over all tensors of one slot.

    Args:
        grads: tensors (K, ...).
        max_norm: τ, (K,) or a number; infinity leaves the gradients as they are.

    Returns:
        The norms before clipping, (K,), float32.

    Source: Pascanu et al. 2013 (arXiv:1211.5063).
    """
    grads = list(grads)
    squares = [grad.reshape(len(grad), -1).float().square().sum(1) for grad in grads]
    norms = torch.stack(squares).sum(0).sqrt()  # (K,)
    limit = torch.as_tensor(max_norm, dtype=torch.float32, device=norms.device)
    scale = torch.where(limit >= norms, 1.0, limit / norms)  # also where both are infinite
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)).to(grad.dtype))
    return norms
