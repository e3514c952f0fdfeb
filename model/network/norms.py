"""Norms of activations, and their registry.

K = slots in a stack, D = width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.network.layers import Weights


def rmsnorm(w: Tensor, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Scale x to unit root mean square, at least in float32, then by a gain.

    Args:
        w: gains, (K, D).
        x: (K, ..., D).
        eps: added to the mean square.

    Returns:
        (K, ..., D) in the dtype of `x`.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467).
    """
    scaled: Tensor = _RMSNorm.apply(w, x, eps)  # type: ignore[no-untyped-call]
    return scaled


class _RMSNorm(torch.autograd.Function):
    """Rmsnorm whose gradient needs fewer passes over memory than that of autograd."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, x: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)  # (K, ..., 1)
        unit = wide * inverse
        ctx.save_for_backward(w, unit, inverse)
        ctx.dtype = x.dtype
        return (unit * _each(w, x)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        w, unit, inverse = ctx.saved_tensors
        gain = _each(w, unit)
        g = grads[0].to(unit.dtype)
        along = g * unit  # (K, ..., D)
        dw = None  # of frozen gains
        if ctx.needs_input_grad[0]:
            dw = along.reshape(len(w), -1, w.shape[-1]).sum(1).to(w.dtype)  # (K, D)
        share = along.mul_(gain).mean(-1, keepdim=True)  # (K, ..., 1)
        dx = (g * gain).sub_(unit * share).mul_(inverse)
        return dw, dx.to(ctx.dtype), None


def layernorm(w: Tensor, b: Tensor, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Shift x to mean 0, scale to variance 1, at least in float32, then apply gain and bias.

    Args:
        w: gains, (K, D).
        b: biases, (K, D).
        x: (K, ..., D).
        eps: added to the variance.

    Returns:
        (K, ..., D) in the dtype of `x`.

    Source: Ba et al. 2016 (arXiv:1607.06450).
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    unit = F.layer_norm(wide, wide.shape[-1:], eps=eps)
    # not addcmul(): its scalar tail may round differently
    return (unit * _each(w, x) + _each(b, x)).to(x.dtype)


def _each(w: Tensor, x: Tensor) -> Tensor:
    """Reshape (K, D) to the number of dimensions of x."""
    return w.view(w.shape[0], *[1] * (x.dim() - 2), w.shape[-1])


Norm = Callable[[Weights, str, Tensor], Tensor]

# eps → (weights, name of the norm, x) → normalized x
NORMS: Mapping[str, Callable[[float], Norm]] = {
    "rmsnorm": lambda eps: lambda w, name, x: rmsnorm(w[f"{name}.weight"], x, eps),
    "layernorm": lambda eps: (
        lambda w, name, x: layernorm(w[f"{name}.weight"], w[f"{name}.bias"], x, eps)
    ),
}
