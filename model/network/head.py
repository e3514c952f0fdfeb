"""Head of a model: from its last activations to logits, or directly to the loss.

The logits are the largest tensor of a small model. `Head.loss` computes them and their gradient a
chunk at a time, so that they are never all in memory.

K = slots in a stack, N = tokens of a slot, n = tokens of a chunk, D = width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from model.network.layers import Weights, linear, soft_cap
from model.network.losses import column, shares, token_losses
from model.spec.architecture import Architecture
from model.spec.multipliers import logit_multiplier

# Tokens of a slot per chunk. On a CPU a chunk of a small vocabulary stays in the cache of a core;
# a GPU needs larger products. The size changes the rounding, so it must not depend on K.
_CHUNKS = {"cpu": 128}
_CHUNK = 1024


class _HeadLoss(torch.autograd.Function):
    """Losses of a slot's tokens from their activations; the forward pass makes both gradients.

    The first result is the loss to differentiate; the second one is the cross-entropy without label
    smoothing and z-loss, None if there is neither.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        targets: Tensor,
        smoothing: Tensor | None,
        z_weight: Tensor | None,
        share: Tensor,
        cap: float,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        with_slope, needs_w = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[1]
        dx = torch.empty_like(x) if with_slope else None
        dw: Tensor | None = None
        if needs_w and products == x.dtype:
            dw = torch.zeros_like(w, dtype=torch.float32)
        losses, plain_losses = list[Tensor](), list[Tensor]()
        size = _CHUNKS.get(x.device.type, _CHUNK)
        ctx.weight_dtype = w.dtype
        w = w.to(products)
        for chunk in (slice(begin, begin + size) for begin in range(0, x.shape[1], size)):
            logits = linear(w, x[:, chunk].to(products))  # (K, n, V)
            capped = soft_cap(logits, cap) if cap else logits
            nll, plain, slope = token_losses(
                capped, targets[:, chunk], smoothing, z_weight, with_slope=with_slope
            )
            losses.append(nll * share[:, chunk])
            if plain is not None:
                plain_losses.append(plain * share[:, chunk])
            if slope is None or dx is None:
                continue
            if cap:
                slope *= 1 - (capped.float() / cap).square()
            slope = slope.to(products)
            each = share[:, chunk].unsqueeze(
                -1
            )  # (K, n, 1), multiplied with D instead of V columns
            dx[:, chunk] = torch.bmm(slope, w) * each
            if needs_w:
                dw = _add_product(dw, slope.transpose(1, 2), (x[:, chunk] * each).to(products))
        ctx.save_for_backward(dx, dw)
        loss = torch.cat(losses, 1).sum(-1)  # (K,)
        if not plain_losses:
            return loss, None
        plain = torch.cat(plain_losses, 1).sum(-1)
        ctx.mark_non_differentiable(plain)
        return loss, plain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors  # the second gradient is of the plain loss: not differentiable
        up = grads[0].view(-1, 1, 1)
        # in place: torch refuses a second backward pass, which would find changed values
        dw = None if dw is None else dw.mul_(up).to(ctx.weight_dtype)
        return dx.mul_(up), dw, *(None,) * 6


def _add_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to a total, None for zero; the sum is float32 whatever the operands are."""
    if total is None:  # saves a pass over memory for zeros
        return torch.bmm(a, b).float()
    if a.dtype == total.dtype:
        return total.baddbmm_(a, b)
    total += torch.bmm(a, b)
    return total


@dataclass(frozen=True)
class Head:
    """The projection to logits of an architecture.

    Attributes:
        table: name of the weights, (K, V, D).
        shrink: factor of the input.
        cap: bound of the logits; 0 for no bound.
        products: dtype to which the operands of products are converted; None for no conversion.
    """

    table: str
    shrink: float
    cap: float
    products: torch.dtype | None = None

    @classmethod
    def of(cls, a: Architecture, products: torch.dtype | None = None) -> Self:
        """Return the head of an architecture.

        A tied head divides its input by √D, because the rows of the embedding have unit variance;
        without `scaled_head`, these begin with a variance of 1/D instead.
        A proxy's divides it by the √D of its target, and multiplies all logits by a factor.

        Source: Raffel et al. 2020 (T5, arXiv:1910.10683), in its published code.
        """
        d_model = a.target.d_model if a.target else a.d_model
        is_scaled = a.tied_embeddings and a.scaled_head
        shrink = (d_model**-0.5 if is_scaled else 1.0) * logit_multiplier(a)
        table = "token_embeddings.weight" if a.tied_embeddings else "lm_head.weight"
        return cls(table, shrink, a.logit_soft_cap, products)

    def __call__(self, w: Weights, x: Tensor) -> Tensor:
        """Return the logits (K, ..., V) of activations (K, ..., D)."""
        table = self._table(w, len(x))
        logits = linear(table.to(self.products or table.dtype), self._shrunk(x))
        return soft_cap(logits, self.cap) if self.cap else logits

    def _table(self, w: Weights, k: int) -> Tensor:
        """Return the matrix for k slots; a frozen one serves all, without copies."""
        table = w[self.table]
        return table if len(table) == k else table.expand(k, -1, -1)

    def _shrunk(self, x: Tensor) -> Tensor:
        return x if self.shrink == 1 else x * self.shrink

    def losses(
        self,
        w: Weights,
        x: Tensor,
        targets: Tensor,
        label_smoothing: Tensor | None = None,
        z_loss: Tensor | None = None,
        *,
        ignore_index: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Return `losses.cross_entropy` of the logits.

        Args:
            w: weights of the model.
            x: last activations, (K, ..., D).
            targets: (K, ...), int64 in [0, V).
            label_smoothing: ε_ls, (K,).
            z_loss: λ_z, (K,).
            ignore_index: target id that does not count; None counts all.

        Returns:
            The loss (K,), float32, which may be differentiated once; and with smoothing or a z-loss
            also the plain cross-entropy (K,), float32, which may not.
        """
        k = len(x)
        ids, share = shares(targets.reshape(k, -1), ignore_index)
        losses: tuple[Tensor, Tensor | None] = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            self._shrunk(x).reshape(k, -1, x.shape[-1]),
            self._table(w, k),
            ids,
            column("label_smoothing", label_smoothing, k, x.device),
            column("z_loss", z_loss, k, x.device),
            share,
            self.cap,
            self.products or x.dtype,
        )
        return tuple(loss for loss in losses if loss is not None)

    def at_targets(
        self, w: Weights, x: Tensor, targets: Tensor, places: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits of the targets that count, a chunk of n at a time, and these targets.

        Args:
            w: weights of the model.
            x: last activations, (K, ..., D).
            targets: (K, ...), int64, equal for all slots.
            places: (n,), int64, those that count, numbered through all dimensions but K.

        Yields:
            (K, n, V) and (K, n), in the order of the targets.
        """
        k, size = len(x), _CHUNKS.get(x.device.type, _CHUNK)
        flat, true = x.reshape(k, -1, x.shape[-1]), targets.reshape(k, -1)
        for chunk in torch.split(places, size):
            yield self(w, flat[:, chunk]), true[:, chunk]
