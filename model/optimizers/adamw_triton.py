"""AdamW for all slots of a stack in one pass over its memory: a Triton kernel, for GPUs.

Its operations are those of `update_rule.update` for rows of AdamW, with equal rounding: no
multiplication is fused with an addition, and quotients and roots are those of IEEE 754. The
optimizers of its neighbours decide if a trial is updated by the kernel, and must not change its
bits.

K = slots in a stack, P = padded parameters of one model, C = entries of `Coefficients`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.optimizers.layout import UNIT, Layout
from model.optimizers.update_rule import Coefficients

_BLOCK = 1024  # parameters per program
_UNIT = tl.constexpr(UNIT)
_COLUMN = {name: tl.constexpr(i) for i, name in enumerate(Coefficients._fields)}
_ALPHA, _EPS = _COLUMN["learning_rate"], _COLUMN["eps"]
_A1, _B1, _C1 = _COLUMN["a1"], _COLUMN["b1"], _COLUMN["c1"]
_A2, _B2, _C2 = _COLUMN["a2"], _COLUMN["b2"], _COLUMN["c2"]
_DECAYS = ("decoupled", "decoupled_embeddings", "decoupled_gains")
_SUPPORTED = {
    "learning_rate", "eps", "a1", "b1", "c1", "a2", "b2", "c2", "adaptive", "updates", *_DECAYS,
}  # fmt: skip


class Kernel:
    """AdamW's update of one stack.

    Args:
        layout: parts of the parameters, each with its decay.
        size: P.
        device: device of the tensors.
    """

    def __init__(self, layout: Layout, size: int, device: torch.device) -> None:
        columns = torch.zeros(size, dtype=torch.int32)
        parts = (layout.matrices, layout.embeddings, layout.gains)
        for name, slices in zip(_DECAYS, parts, strict=True):
            for part in slices:
                columns[part] = Coefficients._fields.index(name)
        self._decays = columns[::UNIT].contiguous().to(device)  # (P / 64,)
        factors = layout.factors(device)
        self._has_factors = factors is not None
        # any tensor of floats if there are none: the kernel does not read it
        self._factors = self._decays.float() if factors is None else torch.stack(factors)

    @staticmethod
    def allows(columns: Sequence[bool], *, adaptive: bool) -> bool:
        """True if the kernel supports the optimizers of all slots.

        Args:
            columns: for each of the C columns of the coefficients, True unless zero for all slots.
            adaptive: True if all slots that are due divide by √v̂.
        """
        used = {name for name, on in zip(Coefficients._fields, columns, strict=True) if on}
        return adaptive and used <= _SUPPORTED

    def apply_(
        self,
        theta: Tensor,
        m: Tensor,
        v: Tensor,
        g: Tensor,
        copy: Tensor,
        rows: Tensor,
        scale: Tensor,
        limit: Tensor,
        due: Tensor,
        moves: Tensor,
    ) -> None:
        """Update in place the slots that move, and clear the gradients of those that are due.

        Args:
            theta: parameters, (K, P) float32.
            m: running means of the gradients, (K, P) float32.
            v: running means of the squared gradients, (K, P) float32.
            g: gradients before clipping, (K, P) float32.
            copy: θ in another dtype, or θ itself.
            rows: (K, C) float32, one `Coefficients` per slot.
            scale: factor of the gradients, applied first, (K,) float32.
            limit: bound to which the gradients are then clamped, (K,) float32.
            due: slots that end an update, (K,) bool.
            moves: slots that are due and alive, (K,) bool.
        """
        slots, size = theta.shape
        # Clones have one alignment. For views with another one Triton would compile a new kernel,
        # which is not possible during the capture of a graph.
        views = rows, scale, limit, due.byte(), moves.byte()
        arguments = [x.clone(memory_format=torch.contiguous_format) for x in views]
        with torch.cuda.device_of(theta):  # type: ignore[no-untyped-call]
            _adamw[triton.cdiv(size, _BLOCK), slots](
                theta, m, v, g, copy, *arguments, self._decays, self._factors, size, rows.shape[1],
                HAS_COPY=copy is not theta, HAS_FACTORS=self._has_factors, BLOCK=_BLOCK,
                enable_fp_fusion=False,
            )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _adamw(  # type: ignore[no-untyped-def]
    theta, m, v, g, copy, rows, scale, limit, due, moves, decays, factors,
    size, columns: tl.constexpr, HAS_COPY: tl.constexpr, HAS_FACTORS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    slot = tl.program_id(1)
    if tl.load(due + slot) == 0:
        return
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    place = slot.to(tl.int64) * size + at
    gradient = tl.load(g + place, mask=inside)
    tl.store(g + place, 0.0, mask=inside)
    if tl.load(moves + slot) == 0:
        return
    row = rows + slot * columns
    most = tl.load(limit + slot)
    gradient = gradient * tl.load(scale + slot)
    gradient = tl.minimum(tl.maximum(gradient, -most), most)
    mean = tl.load(row + _A1) * tl.load(m + place, mask=inside) + tl.load(row + _B1) * gradient
    square = tl.load(row + _A2) * tl.load(v + place, mask=inside)
    square = square + tl.load(row + _B2) * (gradient * gradient)
    root = tl.sqrt_rn(tl.div_rn(square, tl.load(row + _C2)))
    step = tl.div_rn(mean, tl.load(row + _C1))
    unit = at // _UNIT
    eps, rate = tl.load(row + _EPS), tl.load(row + _ALPHA)
    decay = tl.load(row + tl.load(decays + unit, mask=inside, other=0), mask=inside)
    if HAS_FACTORS:  # of rate, decay and eps, one after the other
        units = size // _UNIT
        rate = rate * tl.load(factors + unit, mask=inside, other=1.0)
        decay = decay * tl.load(factors + units + unit, mask=inside, other=1.0)
        eps = eps * tl.load(factors + 2 * units + unit, mask=inside, other=1.0)
    step = tl.div_rn(step, root + eps)
    weight = tl.load(theta + place, mask=inside)
    step = step + decay * weight
    weight = weight - rate * step
    tl.store(m + place, mean, mask=inside)
    tl.store(v + place, square, mask=inside)
    tl.store(theta + place, weight, mask=inside)
    if HAS_COPY:
        tl.store(copy + place, weight.to(copy.dtype.element_ty), mask=inside)
