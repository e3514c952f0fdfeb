"""The update of the slots of a stack: clip, apply the rule, prune, average.

On a CPU each slot that is due is updated by itself, in place. Elsewhere all slots are, and those
that are not due or not alive keep what they have, so that the host need not know which.

K = slots, P = padded parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network.losses import clip_scale
from model.optimizers.adamw_fused import adamw_, is_plain_adamw
from model.optimizers.pruning import KEEP, OFF, mask_, prune_
from model.optimizers.update_rule import Coefficients, columns, stack_rows, update
from model.stack.matrices import Matrices
from model.stack.plan import Plan, Tick, Uses

if TYPE_CHECKING:  # brings triton, which not all machines have
    from model.optimizers.adamw_triton import Kernel


Bools = npt.NDArray[np.bool_]


class Updates(Protocol):
    """How gradients are gathered and weights updated."""

    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        """Add the gradients of a tick, after which the updates of some slots are due, (K,)."""

    def apply(self, tick: Tick, plan: Plan, q: int) -> Tensor:
        """Update the slots that are due after tick q; gradient norms before clipping, (K,)."""
        ...


class PerSlotUpdates:
    """Slot by slot, with what the host knows.

    The gradients of an update of one tick are used where they are: copying them would be a third
    of AdamW's own traffic.

    Args:
        matrices: of the stack.
    """

    def __init__(self, matrices: Matrices) -> None:
        self._matrices = matrices
        self._is_float32 = matrices.copy is matrices.theta  # what the model computes in
        self._is_empty = [True] * matrices.width  # whether the sum of a slot's gradients is
        self._fresh: dict[int, list[Tensor]] = {}  # slot → the gradients of an update of one tick
        slots = range(matrices.width)
        self._theta, self._m, self._v, self._sums = (
            [self._flat(matrix, slot) for slot in slots]
            for matrix in (matrices.theta, matrices.m, matrices.v, matrices.grad)
        )

    def _flat(self, matrix: Tensor, slot: int) -> list[Tensor]:
        """The parameters in a row, each as a vector."""
        return [view.flatten() for view in self._matrices.views(matrix[slot : slot + 1]).values()]

    def clear(self, slot: int) -> None:
        """A slot has been emptied."""
        self._is_empty[slot] = True

    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        """See `Updates`."""
        self._fresh.clear()
        for slot, is_empty in enumerate(self._is_empty):
            own = [grad[slot].flatten() for grad in grads]
            if is_empty and due[slot] and self._is_float32:
                self._fresh[slot] = own
            elif is_empty:
                torch._foreach_copy_(self._sums[slot], own)
            else:
                torch._foreach_add_(self._sums[slot], own)
            self._is_empty[slot] = False

    def apply(self, tick: Tick, plan: Plan, q: int) -> Tensor:
        """See `Updates`."""
        norms = torch.zeros(self._matrices.width)
        for slot in np.flatnonzero(plan.due[q]).tolist():
            norms[slot] = self._apply(slot, plan, q)
            self._is_empty[slot] = True
        return norms

    def _apply(self, slot: int, plan: Plan, q: int) -> Tensor:
        own, row = self._matrices, Coefficients(*plan.coefficients[q, slot].tolist())
        theta, pruning, is_adamw = (
            own.theta[slot],
            float(plan.pruning[q, slot]),
            is_plain_adamw(row),
        )
        grads = self._gradients(slot, as_vector=pruning != OFF or not is_adamw)
        parts = own.layout.matrices if pruning != OFF else ()
        pruned = [theta[part] == 0 for part in parts]
        for part, is_pruned in zip(parts, pruned, strict=True):
            own.grad[slot, part].masked_fill_(is_pruned, 0)
        norm = torch.stack([torch.dot(g, g) for g in grads]).sum().sqrt()
        if not (own.alive[slot] and norm.isfinite()):
            own.alive[slot] = False
            return norm
        _clip_(grads, norm, float(plan.max_norm[q, slot]), float(plan.max_value[q, slot]))
        if is_adamw:
            adamw_(self._theta[slot], self._m[slot], self._v[slot], grads, row, own.layout)
        else:
            self._move(slot, plan.coefficients[q, slot])
        for part, is_pruned in zip(parts, pruned, strict=True):
            theta[part].masked_fill_(is_pruned, 0)
        if pruning not in (OFF, KEEP):
            prune_(theta, pruning, own.layout.weights)
        share = float(plan.averaging[q, slot])
        if share:
            assert own.mean is not None
            own.mean[slot] += share * (theta - own.mean[slot])
            mask_(own.mean, own.theta, (slot,) if parts else (), parts)
        own.refresh(slot)
        return norm

    def _gradients(self, slot: int, *, as_vector: bool) -> list[Tensor]:
        """Of an update, each parameter's; `as_vector` says that they must lie in the matrix."""
        fresh = self._fresh.pop(slot, None)  # nothing holds their memory after the update
        if fresh is None:
            return self._sums[slot]
        if as_vector:
            torch._foreach_copy_(self._sums[slot], fresh)
            return self._sums[slot]
        return fresh

    def _move(self, slot: int, numbers: npt.NDArray[np.float64]) -> None:
        """Apply the rule to a row."""
        own, one = self._matrices, slice(slot, slot + 1)
        state = own.theta[one], own.m[one], own.v[one]
        moved = update(*state, own.grad[one], stack_rows(numbers[None], "cpu"), own.layout)
        for old, new in zip(state, moved, strict=True):
            old.copy_(new)


def _clip_(grads: list[Tensor], norm: Tensor, max_norm: float, max_value: float) -> None:
    """Scale the gradients of a slot by their norm, then cut each to a range, in place."""
    if norm > max_norm:
        torch._foreach_mul_(grads, max_norm / norm)
    if math.isfinite(max_value):
        torch._foreach_clamp_min_(grads, -max_value)
        torch._foreach_clamp_max_(grads, max_value)


class BatchedUpdates:
    """All slots at once, without waiting for the device.

    Args:
        matrices: of the stack.
        uses: what some slot asks for.
        kernel: updates in one pass what it can, if there is one.
    """

    def __init__(self, matrices: Matrices, uses: Uses, kernel: Kernel | None = None) -> None:
        self._matrices, self._uses = matrices, uses
        allowed = kernel is not None and kernel.allows(uses.columns, adaptive=uses.adaptive)
        self._kernel = kernel if allowed else None

    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        """See `Updates`."""
        torch._foreach_add_(self._matrices.grads, grads)

    def apply(self, tick: Tick, plan: Plan, q: int) -> Tensor:
        """See `Updates`."""
        own, uses, due = self._matrices, self._uses, tick.due
        pruned = {slot: x for slot, x in enumerate(plan.pruning[q].tolist()) if x != OFF}
        parts = own.layout.matrices
        mask_(own.grad, own.theta, pruned, parts)
        norms: Tensor = torch.linalg.vector_norm(own.grad, dim=1)  # (K,)
        own.alive &= norms.isfinite() | ~due
        scale, moves = clip_scale(norms, tick.max_norm), due & own.alive  # (K,)
        if self._kernel is not None and not pruned:
            self._kernel.apply_(
                own.theta, own.m, own.v, own.grad, own.copy, tick.coefficients,
                scale, tick.max_value, due, moves,
            )  # fmt: skip
        else:
            self._apply(tick, pruned, scale, moves)
        if uses.averaging:
            assert own.mean is not None
            own.mean += tick.averaging.unsqueeze(1) * (own.theta - own.mean)
            mask_(own.mean, own.theta, own.averaged.intersection(pruned), parts)
        return norms

    def _apply(self, tick: Tick, pruned: dict[int, float], scale: Tensor, moves: Tensor) -> None:
        """As the kernel does, in a pass over memory for each operation."""
        own, uses = self._matrices, self._uses
        own.grad *= scale.unsqueeze(1)
        if uses.max_value:
            limit = tick.max_value.unsqueeze(1)  # (K, 1)
            own.grad.clamp_(-limit, limit)
        c = columns(tick.coefficients, uses.columns, adaptive=uses.adaptive)
        theta, m, v = update(own.theta, own.m, own.v, own.grad, c, own.layout)
        mask_(theta, own.theta, pruned, own.layout.matrices)
        for slot, share in pruned.items():
            if share != KEEP:
                prune_(theta[slot], share, own.layout.weights)
        for old, new in ((own.theta, theta), (own.m, m), (own.v, v)):
            old.copy_(torch.where(moves.unsqueeze(1), new, old))
        own.grad.masked_fill_(tick.due.unsqueeze(1), 0)
        own.refresh()
