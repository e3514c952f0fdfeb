"""The update after compiled gradients, which are one row, for a stack one slot wide.

P = padded parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from model.optimizers.adamw_compiled import CompiledAdamW
from model.optimizers.adamw_fused import is_plain_adamw
from model.optimizers.pruning import OFF
from model.optimizers.update_rule import Coefficients
from model.stack.matrices import Matrices
from model.stack.plan import QuantumPlan
from model.stack.updates import Bools, PerSlotUpdates


class CompiledUpdates(PerSlotUpdates):
    """Updates the slot by a compiled loop if its optimizer is AdamW, otherwise as its base does.

    Which of the two follows from the trial's specification and the number of the update.

    Args:
        matrices: matrices of the stack, one slot wide.

    Raises:
        CompileError: if this machine does not compile.
    """

    def __init__(self, matrices: Matrices) -> None:
        assert matrices.width == 1
        super().__init__(matrices)
        self._adamw = CompiledAdamW(matrices.layout, matrices.theta.shape[1])
        self._row: Tensor | None = None  # gradients of an update of one tick, (P,)

    def add_row(self, row: Tensor, due: Bools) -> None:
        """Add the gradients of a tick, (1, P) float32; `due` as for `add`."""
        self._row = None
        if self._is_empty[0] and due[0]:
            self._row = row[0]
        elif self._is_empty[0]:
            self._matrices.grad.copy_(row)
        else:
            self._matrices.grad.add_(row)
        self._is_empty[0] = False

    @override
    def _update(self, slot: int, plan: QuantumPlan, q: int) -> Tensor:
        matrices, c = self._matrices, Coefficients(*plan.coefficients[q, slot].tolist())
        row, self._row = self._row, None
        is_plain = (
            is_plain_adamw(c)
            and plan.pruning[q, slot] == OFF
            and math.isinf(plan.max_value[q, slot])
            and not plan.averaging[q, slot]
        )
        if not is_plain:
            if row is not None:
                matrices.grad[0].copy_(row)
            return super()._update(slot, plan, q)
        grads = matrices.grad[0] if row is None else row
        norm = torch.dot(grads, grads).sqrt()
        length, most = norm.item(), float(plan.max_norm[q, slot])
        if not (matrices.alive[0] and math.isfinite(length)):
            matrices.alive[0] = False
            return norm
        scale = most / length if length > most else 1.0
        theta, m, v = (matrix[0] for matrix in (matrices.theta, matrices.m, matrices.v))
        self._adamw.apply_(theta, m, v, grads, c, scale)
        matrices.refresh(slot)
        return norm
