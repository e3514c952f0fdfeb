"""Basic layers of all models, stacked: K models in one set of tensors.

K = slots in a stack, V = vocabulary, d = width of a row. Every weight and activation leads with K;
no operation mixes slots, and a slot's bits do not depend on K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

Weights = Mapping[
    str, Tensor
]  # by the names of `parameter_shapes`, or of one block by the names in the block


def linear(w: Tensor, x: Tensor) -> Tensor:
    """Apply a linear map without bias.

    Args:
        w: (K, o, i); in a dtype of its own, it is that of the product.
        x: (K, ..., i).

    Returns:
        (K, ..., o) in the dtype of `x`.
    """
    if w.dtype != x.dtype:
        return _mixed([w], x)[0]
    flat = x.reshape(x.shape[0], -1, x.shape[-1])  # (K, N, i)
    y: Tensor = _Linear.apply(w, flat)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], w.shape[1])


class _Linear(torch.autograd.Function):
    """x·wᵀ; the gradient of w has the memory layout of w, unlike that of `torch.bmm`.

    An optimizer reads both together, and with two layouts its memory access would be strided.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(w, x)
        return torch.bmm(x, w.transpose(1, 2))  # (K, N, o)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (slope,), (w, x) = grads, ctx.saved_tensors
        needs_w, needs_x = ctx.needs_input_grad
        grad_w = torch.bmm(slope.transpose(1, 2), x) if needs_w else None  # (K, o, i)
        return grad_w, torch.bmm(slope, w) if needs_x else None


def linears(ws: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Apply several linear maps to one input; in a dtype of their own, they are one product.

    Args:
        ws: weights as for `linear`, (K, o, i) each.
        x: (K, ..., i).

    Returns:
        (K, ..., o) for each.
    """
    return [linear(w, x) for w in ws] if ws[0].dtype == x.dtype else _mixed(ws, x)


def _mixed(ws: Sequence[Tensor], x: Tensor) -> list[Tensor]:
    """Apply linear maps in the dtype of their weights, with x and the results in that of x."""
    w = ws[0] if len(ws) == 1 else torch.cat(list(ws), 1)
    sizes = [each.shape[1] for each in ws]
    flat = x.reshape(x.shape[0], -1, x.shape[-1])  # (K, N, i)
    ys = _MixedLinear.apply(w, flat, sizes)  # type: ignore[no-untyped-call]
    return [y.view(*x.shape[:-1], size) for y, size in zip(ys, sizes, strict=True)]


class _MixedLinear(torch.autograd.Function):
    """x·wᵀ in the dtype of w, split along its columns; the hardware sums in float32."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        low = x.to(w.dtype)
        ctx.save_for_backward(w, low)
        ctx.dtype = x.dtype
        y = torch.bmm(low, w.transpose(1, 2))  # (K, N, sum of o)
        return tuple(part.to(x.dtype) for part in torch.split(y, sizes, -1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        w, low = ctx.saved_tensors
        needs_w, needs_x, _ = ctx.needs_input_grad
        slopes = [grad.to(w.dtype) for grad in grads]
        slope = slopes[0] if len(slopes) == 1 else torch.cat(slopes, -1)
        grad_w = torch.bmm(slope.transpose(1, 2), low) if needs_w else None  # (K, o, i)
        return grad_w, torch.bmm(slope, w).to(ctx.dtype) if needs_x else None, None


def biased(w: Weights, name: str, y: Tensor) -> Tensor:
    """Add the bias of a linear map to its result, (K, ..., o), if the map has one.

    Args:
        w: weights; the bias is `NAME.bias`, (K, o).
        name: name of the linear map.
        y: result of the map.
    """
    bias = w.get(f"{name}.bias")
    if bias is None:
        return y
    # the gradient of the bias is a sum, which rounds by its layout
    return dense_gradient(y + bias.view(len(bias), *[1] * (y.dim() - 2), -1))


def embedding(w: Tensor, ids: Tensor) -> Tensor:
    """Return the rows of a table.

    Args:
        w: (K, V, d), or (1, V, d) of a table that is frozen.
        ids: (K, ...), int64 in [0, V).

    Returns:
        (K, ..., d).
    """
    if len(w) == 1 and (w.device.type == "cpu" or not w.requires_grad):
        # faster; on a CPU the gradient's sums have the same order, which other devices do not
        # guarantee. A frozen table serves all slots.
        return F.embedding(ids, w[0])
    slot = torch.arange(w.shape[0], device=w.device).view(-1, *[1] * (ids.dim() - 1))
    return w[slot, ids]


def softmax(x: Tensor, dim: int) -> Tensor:
    """Return exponentials over their sum along `dim`, shifted by the maximum against overflow."""
    return torch.softmax(x, dim)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Return cap·tanh(x/cap): about x where x is small, and always within ±cap.

    Args:
        x: (..., V).
        cap: above 0.

    Returns:
        (..., V).

    Source: Gemma Team 2024, section 2 (arXiv:2408.00118).
    """
    # tanh() is not among the kernels whose scalar tail rounds differently (see `Architecture`), so
    # V may be any number; a test checks that
    return cap * torch.tanh(x / cap)


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].contiguous()


def dense_gradient(x: Tensor) -> Tensor:
    """Return x; its gradient is made contiguous.

    Sums and matrix products round by the memory layout of their operands, and the layout of a
    gradient may depend on neighbouring operations.
    """
    y: Tensor = _DenseGradient.apply(x)  # type: ignore[no-untyped-call]
    return y
