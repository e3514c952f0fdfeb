"""Frozen matrices that all slots share, and LoRA's change of them.

K = slots in a stack, N = tokens of a slot, o = outputs, i = inputs, r = rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.network.layers import Weights, biased, linears
from model.randomness import DropoutMasks, uniform
from model.spec.parameter_names import LORA_A, LORA_B

SCALE = "lora_scale"  # among the weights: factor s of each slot, (K,) float32
_FIRST_PLACE = 1 << 13  # of dropout: above those of embeddings and branches
_MOST_MAPS = 8  # in a block


class AdaptedBlock(dict[str, Tensor]):
    """Weights of a block whose matrices are frozen, (1, o, i), and may have LoRA's A and B.

    Args:
        weights: by their names in the block.
        scale: factor s of each slot, (K,).
        drop: masks of the input of A; None drops nothing.
        number: number of the block in the model.
    """

    def __init__(
        self, weights: Weights, scale: Tensor, drop: DropoutMasks | None, number: int
    ) -> None:
        super().__init__(weights)
        self._scale, self._drop = scale, drop
        maps = [name for name in weights if name.endswith(f".{LORA_A}.weight")]
        first = _FIRST_PLACE + _MOST_MAPS * number
        self._places = {name.rsplit(".", 2)[0]: first + i for i, name in enumerate(sorted(maps))}

    def project(self, name: str, x: Tensor) -> Tensor:
        """Return W·x + s·B·A·x, or W·x, of the matrix of a name: (K, ..., i) → (K, ..., o)."""
        w = self[f"{name}.weight"][0]
        flat = x.reshape(x.shape[0], -1, x.shape[-1])  # (K, N, i)
        low_rank: tuple[Tensor, ...] = ()
        if name in self._places:
            dropped = self._drop(flat, self._places[name]) if self._drop else flat
            a, b = self[f"{name}.{LORA_A}.weight"], self[f"{name}.{LORA_B}.weight"]
            low_rank = dropped, a, b, self._scale.to(b.dtype)
        y: Tensor = _AdaptedLinear.apply(flat, w, *low_rank)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], len(w))


def projections(w: Weights, names: Sequence[str], x: Tensor) -> list[Tensor]:
    """Apply the linear maps of some names to one input, with their biases and LoRA's matrices.

    Args:
        w: weights of a block.
        names: names of the maps in the block.
        x: (K, ..., i).

    Returns:
        (K, ..., o) for each.
    """
    if isinstance(w, AdaptedBlock):
        ys = [w.project(name, x) for name in names]
    else:
        ys = linears([w[f"{name}.weight"] for name in names], x)
    return [biased(w, name, y) for name, y in zip(names, ys, strict=True)]


class _AdaptedLinear(torch.autograd.Function):
    """x·Wᵀ + s·(d·Aᵀ)·Bᵀ with a frozen W; d is x after dropout.

    W may have the dtype of products; those of A and B are computed in the dtype of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, *low_rank: Tensor) -> Tensor:
        y, inner = _each_slot(_forward, (x, *low_rank), (w,))
        ctx.save_for_backward(w, *low_rank[:3], *([inner, low_rank[3]] if low_rank else []))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        w, *low_rank = ctx.saved_tensors
        needs = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:3])
        if low_rank:
            dx, dd, da, db = _each_slot(_backward, (grads[0], *low_rank), (w, *needs))
            return dx if needs[0] else None, None, dd if needs[1] else None, da, db, None
        return _each_slot(_backward, (grads[0],), (w, *needs))[0] if needs[0] else None, None


def _each_slot(
    function: Any, of_slots: tuple[Tensor, ...], shared: tuple[Any, ...]
) -> tuple[Tensor, ...]:
    """Compute all slots together, on a CPU one by one.

    Together, the tokens of all slots are one product with W. How many rows it has decides how a CPU
    computes it, and a slot's bits must not depend on K. The copy of a slot is aligned as if alone.
    """
    k = len(of_slots[0])
    if k == 1 or of_slots[0].device.type != "cpu":
        return tuple(function(of_slots, *shared))
    slots = [tuple(x[i : i + 1].clone() for x in of_slots) for i in range(k)]
    parts = [function(slot, *shared) for slot in slots]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _product(x: Tensor, w: Tensor) -> Tensor:
    """Return x·w of (K, N, p) and one matrix (p, q) in the dtype of w, as one product."""
    y = torch.mm(x.reshape(-1, x.shape[-1]).to(w.dtype), w)
    return y.to(x.dtype).view(*x.shape[:-1], -1)


def _forward(of_slots: tuple[Tensor, ...], w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result, and s·d·Aᵀ for the backward pass; without LoRA any tensor for that."""
    x, *low_rank = of_slots
    y = _product(x, w.T)
    if not low_rank:
        return y, y[:, :0]
    dropped, a, b, scale = low_rank
    inner = torch.bmm(dropped, a.transpose(1, 2)) * scale.view(-1, 1, 1)  # (K, N, r)
    return y.baddbmm_(inner, b.transpose(1, 2)), inner


def _backward(
    of_slots: tuple[Tensor, ...], w: Tensor, needs_x: bool, needs_dropped: bool = False
) -> list[Tensor]:
    """Return the gradients of x, d, A and B; those that are not needed are empty."""
    g, *low_rank = of_slots
    results = [_product(g, w) if needs_x else g[:, :0]]
    if low_rank:
        dropped, a, b, inner, scale = low_rank
        slope = torch.bmm(g, b) * scale.view(-1, 1, 1)  # (K, N, r)
        results.append(torch.bmm(slope, a) if needs_dropped else g[:, :0])
        results.append(torch.bmm(slope.transpose(1, 2), dropped))
        results.append(torch.bmm(g.transpose(1, 2), inner))
    return results


def initial_adapter(key: int, name: str, shape: tuple[int, ...], device: Any = "cpu") -> Tensor:
    """Return the initial A or B of a trial, float32 on a device: B is zero.

    A is uniform in ±1/√i, as PEFT begins by Kaiming's rule with a slope of √5.

    Source: He et al. 2015, equation 10 (arXiv:1502.01852); Hu et al. 2021, section 4.1.
    """
    if name.endswith(f"{LORA_B}.weight"):
        return torch.zeros(shape, device=device)
    return uniform(key, shape, shape[1] ** -0.5, device)


def merge(
    base: Mapping[str, Tensor], adapters: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Return weights with LoRA's change in them, W + s·B·A, computed in float64.

    Args:
        base: by the names of `parameter_shapes`, without K, float32.
        adapters: by the names of `adapter_shapes`, without K.
        scale: s.
    """
    merged = dict(base)
    for name, a in adapters.items():
        block, _, kind = name.rpartition(f".{LORA_A}.")
        if block:
            b, w = adapters[f"{block}.{LORA_B}.{kind}"], base[f"{block}.{kind}"]
            merged[f"{block}.{kind}"] = (w.double() + scale * b.double() @ a.double()).float()
    return merged


def change_of(
    adapters: Mapping[str, Tensor], squares: Mapping[str, Tensor], scale: Tensor
) -> tuple[float, float]:
    """Return the norm of a slot's adapters, and that of s·B·A as a share of the norm of W.

    Both norms are those of all matrices together.

    Args:
        adapters: by the names of `adapter_shapes`, without K.
        squares: squared norm of each frozen matrix, by its name, float64.
        scale: s.
    """
    own, changed, frozen = torch.zeros(3, dtype=torch.float64, device=scale.device)
    for name, a in adapters.items():
        block, _, kind = name.rpartition(f".{LORA_A}.")
        if block:
            a, b = a.double(), adapters[f"{block}.{LORA_B}.{kind}"].double()
            own = own + a.square().sum() + b.square().sum()
            changed = changed + ((b.T @ b) * (a @ a.T)).sum()  # ‖B·A‖², of r × r products
            frozen = frozen + squares[f"{block}.{kind}"]
    share = scale.double() * (changed / frozen).clamp(min=0).sqrt()
    norm, effective = torch.stack([own.sqrt(), share]).tolist()  # one wait
    return norm, effective
