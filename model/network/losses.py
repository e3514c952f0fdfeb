"""Losses and gradient clipping, one value per slot.

K = slots in a stack, N = targets of a slot, n = some of them, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TokenLosses(NamedTuple):
    """Losses of tokens in nats, (K, n) float32.

    Attributes:
        objective: loss with label smoothing and z-loss.
        plain: cross-entropy alone; None if it is the objective.
        slope: gradient of the objective by the logits, (K, n, V) float32; None if not requested.
    """

    objective: Tensor
    plain: Tensor | None
    slope: Tensor | None


def token_losses(
    logits: Tensor,
    targets: Tensor,
    smoothing: Tensor | None = None,
    z_weight: Tensor | None = None,
    *,
    with_slope: bool = True,
) -> TokenLosses:
    """Return the losses of each token and their gradient, from one exponential per logit.

    Args:
        logits: (K, n, V), floating.
        targets: (K, n), int64 in [0, V).
        smoothing: ε_ls, (K, 1) float32; None for no smoothing.
        z_weight: λ_z, (K, 1) float32; None for no z-loss.
        with_slope: True to compute the gradient.
    """
    p = torch.softmax(logits, -1, dtype=torch.float32)  # (K, n, V)
    top = logits.amax(-1).float()  # (K, n)
    # log Z − top: the largest probability is at least 1/V, so its logarithm is exact enough
    rest = -p.amax(-1).log()
    true = targets.unsqueeze(-1)
    nll = plain = (top - logits.gather(-1, true).squeeze(-1)) + rest
    if smoothing is not None:
        nll = (1 - smoothing) * nll + smoothing * ((top - logits.float().mean(-1)) + rest)
    slope = None  # of log Z
    if z_weight is not None:
        log_z = top + rest
        nll = torch.where(z_weight > 0, nll + z_weight * log_z.square(), nll)
        slope = torch.where(z_weight > 0, 1 + 2 * z_weight * log_z, 1.0).unsqueeze(-1)
    other = None if nll is plain else plain
    if not with_slope:
        return TokenLosses(nll, other, None)
    if slope is not None:
        p *= slope
    if smoothing is None:
        _add_at(p, true, p.new_full((1, 1, 1), -1.0))
    else:
        _add_at(p, true, (smoothing - 1).unsqueeze(-1))
        p -= smoothing.unsqueeze(-1) / p.shape[-1]
    return TokenLosses(nll, other, p)


def _add_at(p: Tensor, index: Tensor, value: Tensor) -> None:
    """Add a value to one element of each row, (K, n, V) and (K, n, 1), in place."""
    if p.device.type == "cpu":
        p.scatter_add_(-1, index, value.expand(index.shape))
    else:  # a deterministic scatter on a GPU may wait for the host
        elements = torch.arange(p.shape[-1], device=p.device)
        p += torch.where(elements == index, value, 0.0)


class _SmoothedNll(torch.autograd.Function):
    """Cross-entropy against smoothed targets; the forward pass makes the gradient as well.

    Autograd would make three tensors of the size of the logits, which are the largest tensor of a
    small language model.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        smoothing: Tensor | None,
        z_weight: Tensor | None,
        share: Tensor,
    ) -> Tensor:
        with_slope = bool(ctx.needs_input_grad[0])
        nll, _, slope = token_losses(logits, targets, smoothing, z_weight, with_slope=with_slope)
        ctx.save_for_backward(slope, share)
        ctx.logits_dtype = logits.dtype
        return (nll * share).sum(-1)  # (K,)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        slope, share = ctx.saved_tensors
        each = (grads[0].unsqueeze(-1) * share).unsqueeze(-1)  # (K, N, 1)
        # in place: torch refuses a second backward pass, which would find changed values
        return slope.mul_(each).to(ctx.logits_dtype), None, None, None, None


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: Tensor | float | None = None,
    z_loss: Tensor | float | None = None,
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Return the mean cross-entropy in nats per token, one value per slot.

    −Σ_v ((1−ε_ls)·[v = y] + ε_ls/V)·log p_v + λ_z·log²Z, averaged over the tokens of a slot. The
    result may be differentiated once.

    Args:
        logits: (K, ..., V), floating.
        targets: (K, ...), int64 in [0, V).
        label_smoothing: ε_ls, probability spread evenly over the vocabulary, (K,) or a number.
        z_loss: λ_z, weight of log²Z with Z = Σ_v exp(logit_v), (K,) or a number.
        ignore_index: target id that does not count; None counts all. A slot without any other
            target is NaN.

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
    smoothing = column("label_smoothing", label_smoothing, slots, logits.device)
    z_weight = column("z_loss", z_loss, slots, logits.device)
    flat = logits.reshape(slots, -1, logits.shape[-1])
    ids, share = shares(targets.reshape(slots, -1), ignore_index)
    loss: Tensor = _SmoothedNll.apply(  # type: ignore[no-untyped-call]
        flat, ids, smoothing, z_weight, share
    )
    return loss


def shares(targets: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Return valid target ids, and the share of each target in the mean of its slot.

    Args:
        targets: (K, N) int64.
        ignore_index: target id that does not count, replaced by 0; None counts all.

    Returns:
        Ids, (K, N) int64; and shares, (K, N) float32, 0 for a target that does not count. In a
        slot without any other target all shares are NaN.
    """
    if ignore_index is None:
        return targets, torch.full(targets.shape, 1 / targets.shape[1], device=targets.device)
    counts = targets != ignore_index
    return targets.where(counts, 0), counts / counts.sum(-1, keepdim=True)


def column(
    name: str, value: Tensor | float | None, slots: int, device: torch.device
) -> Tensor | None:
    """Return one number per slot, (K, 1) float32; None for None.

    Args:
        name: name of the value, for the error.
        value: one number for all slots, or (K,).
        slots: K.
        device: device of the result.

    Raises:
        ValueError: if the shape is neither.
    """
    if value is None:
        return None
    numbers = torch.as_tensor(value, dtype=torch.float32, device=device)
    if numbers.shape not in {(), (1,), (slots,)}:
        raise ValueError(f"{name} must be one number or {slots}, got {tuple(numbers.shape)}")
    return numbers.expand(slots).view(slots, 1)


def clip_grads_(grads: Iterable[Tensor], max_norm: Tensor | float) -> Tensor:
    """Scale each slot's gradients in place so that their global norm is at most `max_norm`.

    g ← g·min(1, τ/‖g‖), the norm taken over all tensors of one slot.

    Args:
        grads: tensors (K, ...).
        max_norm: τ, (K,) or a number; infinity leaves the gradients as they are.

    Returns:
        Norms before clipping, (K,), float32.

    Source: Pascanu et al. 2013 (arXiv:1211.5063).
    """
    grads = list(grads)
    squares = [grad.reshape(len(grad), -1).float().square().sum(1) for grad in grads]
    norms = torch.stack(squares).sum(0).sqrt()  # (K,)
    scale = clip_scale(norms, max_norm)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)).to(grad.dtype))
    return norms


def clip_scale(norms: Tensor, max_norm: Tensor | float) -> Tensor:
    """Return the factors that scale gradients of some norms to at most `max_norm`.

    Args:
        norms: (K,) float32.
        max_norm: as for `clip_grads_`.

    Returns:
        (K,) float32.
    """
    limit = torch.as_tensor(max_norm, dtype=torch.float32, device=norms.device)
    return torch.where(limit >= norms, 1.0, limit / norms)  # 1 also where both are infinite
