"""AdamW in one pass over a row of parameters, with clipping: a C++ loop, for one slot on a CPU.

The loop multiplies the gradients by the factor of clipping as it reads them, and takes the complete
row at once. Torch's kernel needs a pass more, and a call for every tensor. Each operation is
rounded as IEEE 754 says, so that the bits do not depend on the compiler.

P = padded parameters of one model.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from model.device.compiler import compile_library
from model.optimizers.layout import UNIT, Layout
from model.optimizers.update_rule import Coefficients

_SOURCE = """
extern "C" void adamw(
    float* __restrict__ theta, float* __restrict__ m, float* __restrict__ v,
    const float* __restrict__ g, const float* __restrict__ keep,
    const float* __restrict__ rate_factors, const float* __restrict__ eps_factors, long units,
    float scale, float a1, float b1, float a2, float b2, float rate, float root, float eps)
{
    for (long unit = 0; unit < units; ++unit) {
        const long begin = 64 * unit;
        const float own_rate = rate * rate_factors[unit], own_eps = eps * eps_factors[unit];
        for (long i = begin; i < begin + 64; ++i) {
            const float gradient = g[i] * scale;
            m[i] = a1 * m[i] + b1 * gradient;
            v[i] = a2 * v[i] + b2 * (gradient * gradient);
            theta[i] = theta[i] * keep[unit]
                - own_rate * m[i] / (__builtin_sqrtf(v[i]) / root + own_eps);
        }
    }
}
"""


@cache
def load_kernel() -> Callable[..., None]:
    """Return the compiled loop.

    Raises:
        CompileError: if it cannot be compiled.
        OSError: if the system does not load it.
    """
    function = ctypes.CDLL(str(compile_library(_SOURCE))).adamw
    function.restype = None
    function.argtypes = [*[ctypes.c_void_p] * 7, ctypes.c_long, *[ctypes.c_float] * 8]
    return function


class CompiledAdamW:
    """AdamW's update of one slot.

    Args:
        layout: tensors, each with its decay and its multipliers.
        size: P.
    """

    def __init__(self, layout: Layout, size: int) -> None:
        self._kernel, self._units = load_kernel(), size // UNIT
        self._groups = layout.groups
        numbers = torch.zeros(size, dtype=torch.int64)
        for number, group in enumerate(layout.groups):
            for member in group.members:
                numbers[layout.tensors[member]] = number
        self._numbers = numbers[::UNIT].clone()  # group of each unit, (P / 64,)
        factors = [(each.rate, each.eps) for _, each, _ in layout.groups]
        self._rates, self._eps = torch.tensor(factors)[self._numbers].T.contiguous()

    def apply_(
        self, theta: Tensor, m: Tensor, v: Tensor, g: Tensor, row: Coefficients, scale: float
    ) -> None:
        """Update one slot in place.

        Args:
            theta: parameters, (P,) float32, contiguous.
            m: running means of the gradients, as `theta`.
            v: running means of the squared gradients, as `theta`.
            g: gradients, as `theta`.
            row: row of numbers for which `adamw_fused.is_plain_adamw` is true.
            scale: factor of the gradients.

        Source: Loshchilov and Hutter 2017, algorithm 2 (arXiv:1711.05101).
        """
        decays = row.decoupled, row.decoupled_embeddings, row.decoupled_gains
        keep = torch.tensor([
            1 - row.learning_rate * each.rate * (decays[kind] * each.decay)
            for kind, each, _ in self._groups
        ])[self._numbers]  # fmt: skip
        self._kernel(
            *(x.data_ptr() for x in (theta, m, v, g, keep, self._rates, self._eps)), self._units,
            scale, row.a1, row.b1, row.a2, row.b2, row.learning_rate / row.c1,
            math.sqrt(row.c2), row.eps,
        )  # fmt: skip
