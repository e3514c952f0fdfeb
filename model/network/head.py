"""The head of a model: from its last activations to logits, or straight to their loss.

The logits are the largest tensor of a small model. `Head.loss` makes them a chunk at a time, and
their gradient at once, so that they are never all in memory.

K = slots in a stack, N = tokens of a slot, n = tokens of a chunk, D = width, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from model.network.layers import Weights, linear, soft_cap
from model.network.losses import column, nll_and_slope, shares
from model.spec.architecture import Architecture

# Tokens of a slot at a time. On a CPU a chunk of a small vocabulary stays in the cache of a core;
# a GPU wants larger products. It is part of the rounding, so that it must not depend on K.
_CHUNKS = {"cpu": 128}
_CHUNK = 1024


class _HeadLoss(torch.autograd.Function):
    """Loss of a slot's tokens from their activations, with both gradients made on the way."""

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
    ) -> Tensor:
        with_slope = any(ctx.needs_input_grad[:2])
        dx = torch.empty_like(x) if with_slope else None
        dw = torch.zeros_like(w, dtype=torch.float32) if with_slope else None
        losses = []
        size = _CHUNKS.get(x.device.type, _CHUNK)
        for own in (slice(begin, begin + size) for begin in range(0, x.shape[1], size)):
            logits = linear(w, x[:, own])  # (K, n, V)
            capped = soft_cap(logits, cap) if cap else logits
            nll, slope = nll_and_slope(
                capped, targets[:, own], smoothing, z_weight, with_slope=with_slope
            )
            losses.append(nll * share[:, own])
            if slope is None or dx is None or dw is None:
                continue
            if cap:
                slope *= 1 - (capped.float() / cap).square()
            slope = slope.to(x.dtype)
            each = share[:, own].unsqueeze(-1)  # (K, n, 1), applied where there is D and not V
            dx[:, own] = torch.bmm(slope, w) * each
            _add_product(dw, slope.transpose(1, 2), (x[:, own] * each).to(x.dtype))
        ctx.save_for_backward(dx, dw)
        ctx.weight_dtype = w.dtype
        return torch.cat(losses, 1).sum(-1)  # (K,)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw = ctx.saved_tensors
        up = grads[0].view(-1, 1, 1)
        # in place: a second backward would find them spoilt, and is refused
        return dx.mul_(up), dw.mul_(up).to(ctx.weight_dtype), *(None,) * 5


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to a total, the sum in float32 whatever the operands are."""
    if a.dtype == total.dtype:
        total.baddbmm_(a, b)
    else:
        total += torch.bmm(a, b)


@dataclass(frozen=True)
class Head:
    """The projection to logits of an architecture.

    Attributes:
        table: name of its weights, (K, V, D).
        shrink: what its input is multiplied with.
        cap: bound of the logits; 0 is none.
    """

    table: str
    shrink: float
    cap: float

    @classmethod
    def of(cls, a: Architecture) -> Self:
        """The head that an architecture asks for.

        A tied head shrinks its input by √D, as the rows of the embedding have unit variance.

        Source: Raffel et al. 2020 (T5, arXiv:1910.10683), in its published code.
        """
        table = "token_embeddings.weight" if a.tied_embeddings else "lm_head.weight"
        return cls(table, a.d_model**-0.5 if a.tied_embeddings else 1.0, a.logit_soft_cap)

    def __call__(self, w: Weights, x: Tensor) -> Tensor:
        """Activations (K, ..., D) to logits (K, ..., V)."""
        logits = linear(w[self.table], self._shrunk(x))
        return soft_cap(logits, self.cap) if self.cap else logits

    def _shrunk(self, x: Tensor) -> Tensor:
        return x if self.shrink == 1 else x * self.shrink

    def loss(
        self,
        w: Weights,
        x: Tensor,
        targets: Tensor,
        label_smoothing: Tensor | None = None,
        z_loss: Tensor | None = None,
        *,
        ignore_index: int | None = None,
    ) -> Tensor:
        """`losses.cross_entropy` of the logits, which are not kept; may be differentiated once.

        Args:
            w: weights of the model.
            x: last activations, (K, ..., D).
            targets: (K, ...), int64 in [0, V).
            label_smoothing: ε_ls, (K,).
            z_loss: λ_z, (K,).
            ignore_index: a target that takes no part; None: all do.

        Returns:
            (K,), float32.
        """
        k = len(x)
        true, share = shares(targets.reshape(k, -1), ignore_index)
        loss: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            self._shrunk(x).reshape(k, -1, x.shape[-1]),
            w[self.table],
            true,
            column("label_smoothing", label_smoothing, k, x.device),
            column("z_loss", z_loss, k, x.device),
            share,
            self.cap,
        )
        return loss
