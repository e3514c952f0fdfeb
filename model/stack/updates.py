"""The update of the slots of a stack: clip, apply the update rule, prune, average.

On a CPU, slots that are due are updated one by one, in place. On a GPU all slots are updated at
once, and slots that are not due or not alive keep their values: the host then need not know the
live slots, for which it would have to wait for the device.

K = slots, P = padded parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from model.network.losses import clip_scale
from model.optimizers.adamw_fused import adamw_, is_plain_adamw
from model.optimizers.pruning import KEEP, OFF, mask_, prune_
from model.optimizers.update_rule import Coefficients, columns, stack_rows, update
from model.stack.matrices import Matrices
from model.stack.plan import ActiveFeatures, QuantumPlan, Tick

if TYPE_CHECKING:  # imports triton, which not all machines have
    from model.optimizers.adamw_triton import Kernel


Bools = npt.NDArray[np.bool_]


class Updates(Protocol):
    """Accumulates gradients and updates weights."""

    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        """Add the gradients of a tick.

        Args:
            grads: gradients in the order of `Matrices.weights`, (K, …) each.
            due: (K,), True for slots whose update follows this tick.
        """

    def apply(self, tick: Tick, plan: QuantumPlan, q: int) -> Tensor:
        """Update the slots that are due after tick q.

        Returns:
            Gradient norms before clipping, (K,).
        """
        ...


class PerSlotUpdates(Updates):
    """Updates slots one by one, with the numbers of the host.

    If an update has one tick, its gradients are used where autograd left them: copying them into
    the matrix would add a third to AdamW's own memory traffic.

    Args:
        matrices: matrices of the stack.
    """

    def __init__(self, matrices: Matrices) -> None:
        self._matrices = matrices
        self._is_float32 = matrices.copy is matrices.theta  # the dtype of the gradients
        self._is_empty = [True] * matrices.width  # no gradients were added since the last update
        self._fresh: dict[int, list[Tensor]] = {}  # slot → gradients of an update of one tick
        slots = range(matrices.width)
        self._theta, self._m, self._v, self._sums = (
            [self._vectors(matrix, slot) for slot in slots]
            for matrix in (matrices.theta, matrices.m, matrices.v, matrices.grad)
        )

    def _vectors(self, matrix: Tensor, slot: int) -> list[Tensor]:
        """Return the parameters of a slot's row, each as a vector."""
        return [view.flatten() for view in self._matrices.views(matrix[slot : slot + 1]).values()]

    def clear(self, slot: int) -> None:
        """Drop the gradients of a slot that gets another trial."""
        self._is_empty[slot] = True

    @override
    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        self._fresh.clear()
        for slot, is_empty in enumerate(self._is_empty):
            vectors = [grad[slot].flatten() for grad in grads]
            if is_empty and due[slot] and self._is_float32:
                self._fresh[slot] = vectors
            elif is_empty:
                torch._foreach_copy_(self._sums[slot], vectors)
            else:
                torch._foreach_add_(self._sums[slot], vectors)
            self._is_empty[slot] = False

    @override
    def apply(self, tick: Tick, plan: QuantumPlan, q: int) -> Tensor:
        norms = torch.zeros(self._matrices.width)
        for slot in np.flatnonzero(plan.due[q]).tolist():
            norms[slot] = self._update(slot, plan, q)
            self._is_empty[slot] = True
        return norms

    def _update(self, slot: int, plan: QuantumPlan, q: int) -> Tensor:
        """Update one slot in place; return the norm of its gradients before clipping."""
        matrices, c = self._matrices, Coefficients(*plan.coefficients[q, slot].tolist())
        theta, is_adamw = matrices.theta[slot], is_plain_adamw(c)
        pruning = float(plan.pruning[q, slot])
        # Torch's AdamW takes a list of tensors. The update rule and pruning work on ranges of the
        # row, so for them the gradients must lie in the matrix.
        grads = self._gradients(slot, as_row=pruning != OFF or not is_adamw)
        parts = matrices.layout.matrices if pruning != OFF else ()
        # A slot needs no mask of its own: a zero weight is a pruned one. Which weights are zero
        # must be noted before the update, since momentum and decay could move them.
        pruned = [theta[part] == 0 for part in parts]
        for part, is_pruned in zip(parts, pruned, strict=True):
            matrices.grad[slot, part].masked_fill_(is_pruned, 0)
        # Norm of pruned gradients: pruned weights take no part in training, nor in clipping. The
        # sum over tensors has one order wherever the gradients lie.
        norm = torch.stack([torch.dot(g, g) for g in grads]).sum().sqrt()
        if not (matrices.alive[slot] and norm.isfinite()):
            matrices.alive[slot] = False  # the slot keeps its values until the host notices
            return norm
        _clip_(grads, norm, float(plan.max_norm[q, slot]), float(plan.max_value[q, slot]))
        if is_adamw:
            adamw_(self._theta[slot], self._m[slot], self._v[slot], grads, c, matrices.layout)
        else:
            self._apply_rule(slot, plan.coefficients[q, slot])
        for part, is_pruned in zip(parts, pruned, strict=True):
            theta[part].masked_fill_(is_pruned, 0)
        if pruning not in (OFF, KEEP):
            prune_(theta, pruning, matrices.layout.weights)
        share = float(plan.averaging[q, slot])
        if share:  # after pruning, so that the mean is as sparse as the weights
            assert matrices.mean is not None
            matrices.mean[slot] += share * (theta - matrices.mean[slot])
            mask_(matrices.mean, matrices.theta, (slot,) if parts else (), parts)
        matrices.refresh(slot)
        return norm

    def _gradients(self, slot: int, *, as_row: bool) -> list[Tensor]:
        """Return the gradients of an update, one vector per parameter.

        Args:
            slot: number of the slot.
            as_row: True if they must be views of the slot's row of `Matrices.grad`.
        """
        fresh = self._fresh.pop(slot, None)  # popped, so that their memory is free after the update
        if fresh is None:
            return self._sums[slot]
        if as_row:
            torch._foreach_copy_(self._sums[slot], fresh)
            return self._sums[slot]
        return fresh

    def _apply_rule(self, slot: int, row: npt.NDArray[np.float64]) -> None:
        """Apply the update rule to a slot, with its row of coefficients, (C,)."""
        matrices, one = self._matrices, slice(slot, slot + 1)
        state = matrices.theta[one], matrices.m[one], matrices.v[one]
        c = stack_rows(row[None], "cpu")
        for old, new in zip(
            state, update(*state, matrices.grad[one], c, matrices.layout), strict=True
        ):
            old.copy_(new)


def _clip_(grads: list[Tensor], norm: Tensor, max_norm: float, max_value: float) -> None:
    """Scale the gradients of a slot by their norm, then clamp each to a range, in place."""
    if norm > max_norm:
        torch._foreach_mul_(grads, max_norm / norm)
    if math.isfinite(max_value):
        torch._foreach_clamp_min_(grads, -max_value)
        torch._foreach_clamp_max_(grads, max_value)


class BatchedUpdates(Updates):
    """Updates all slots at once, without waiting for the device.

    Args:
        matrices: matrices of the stack.
        features: features that at least one slot uses.
        kernel: kernel that updates AdamW's slots in one pass, if there is one.
    """

    def __init__(
        self, matrices: Matrices, features: ActiveFeatures, kernel: Kernel | None = None
    ) -> None:
        self._matrices, self._features = matrices, features
        is_allowed = kernel is not None and kernel.allows(
            features.columns, adaptive=features.adaptive
        )
        self._kernel = kernel if is_allowed else None

    @override
    def add(self, grads: tuple[Tensor, ...], due: Bools) -> None:
        torch._foreach_add_(self._matrices.grads, grads)

    @override
    def apply(self, tick: Tick, plan: QuantumPlan, q: int) -> Tensor:
        matrices, features, due = self._matrices, self._features, tick.due
        pruned = {slot: x for slot, x in enumerate(plan.pruning[q].tolist()) if x != OFF}
        parts = matrices.layout.matrices
        mask_(matrices.grad, matrices.theta, pruned, parts)
        norms: Tensor = torch.linalg.vector_norm(matrices.grad, dim=1)  # (K,)
        matrices.alive &= norms.isfinite() | ~due
        scale, moves = clip_scale(norms, tick.max_norm), due & matrices.alive  # (K,)
        if self._kernel is not None and not pruned:
            self._kernel.apply_(
                matrices.theta, matrices.m, matrices.v, matrices.grad, matrices.copy,
                tick.coefficients, scale, tick.max_value, due, moves,
            )  # fmt: skip
        else:
            self._apply_rule(tick, pruned, scale, moves)
        if features.averaging:
            assert matrices.mean is not None
            matrices.mean += tick.averaging.unsqueeze(1) * (matrices.theta - matrices.mean)
            mask_(matrices.mean, matrices.theta, matrices.averaged.intersection(pruned), parts)
        return norms

    def _apply_rule(
        self, tick: Tick, pruned: dict[int, float], scale: Tensor, moves: Tensor
    ) -> None:
        """Do the kernel's work, and pruning, with a pass over memory for each operation."""
        matrices, features = self._matrices, self._features
        matrices.grad *= scale.unsqueeze(1)
        if features.max_value:
            limit = tick.max_value.unsqueeze(1)  # (K, 1)
            matrices.grad.clamp_(-limit, limit)
        c = columns(tick.coefficients, features.columns, adaptive=features.adaptive)
        theta, m, v = update(
            matrices.theta, matrices.m, matrices.v, matrices.grad, c, matrices.layout
        )
        mask_(theta, matrices.theta, pruned, matrices.layout.matrices)
        for slot, share in pruned.items():
            if share != KEEP:
                prune_(theta[slot], share, matrices.layout.weights)
        for old, new in ((matrices.theta, theta), (matrices.m, m), (matrices.v, v)):
            old.copy_(torch.where(moves.unsqueeze(1), new, old))
        matrices.grad.masked_fill_(tick.due.unsqueeze(1), 0)
        matrices.refresh()
