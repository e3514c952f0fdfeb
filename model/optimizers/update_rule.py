"""Update rule with coefficients; each optimizer is one row of them.

    g  ← g + λ₁·sign(θ)
    r  ← η·‖θ‖/(‖g‖ + λ·‖θ‖) or 1                   per tensor: LARS
    g  ← r·(g + λ_coupled·θ)
    m  ← a₁·m + b₁·g
    v  ← a₂·v + b₂·g²
    u  ← p·m/c₁ + q·g  or  m/c₁                      look-ahead: Nesterov
    u  ← u / (√(v/c₂) + ε  or 1) + λ·θ
    r  ← ‖θ‖/‖u‖ or 1                               per tensor: LAMB
    θ  ← θ − α·f·r·u                                f of LoRA's B, 1 for all others

In the model of a proxy, α, ε and the λ of the step have a factor for each tensor
(`model.spec.multipliers`), which `Layout.factors` holds; only AdamW and Muon are used there.

Two directions do not fit the rule and are functions of their own: Lion's replaces u, and Muon's
replaces m and u of the hidden matrices. A row of coefficients selects all of this, so the slots of
a stack may differ even in their optimizer. Terms that no slot uses are skipped, which changes no
bits of the others: a slot either takes a new value or keeps its old one. Gradients are clipped
before (`losses.clip_grads_`).

K = slots in a stack, P = padded parameters of one model, N = tensors of one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.optimizers.layout import UNIT, Layout, Parts
from model.optimizers.muon import muon_


class Coefficients(NamedTuple):
    """Row of coefficients; each entry is a number, or a tensor that broadcasts against θ."""

    learning_rate: Any  # α
    coupled: Any  # λ in the gradient
    decoupled: Any  # λ in the step
    a1: Any
    b1: Any
    c1: Any
    a2: Any
    b2: Any
    c2: Any
    eps: Any
    adaptive: Any  # 1: divide by √(v/c₂) + ε; 0: divide by 1
    coupled_embeddings: Any = 0.0  # λ_emb in the gradient
    coupled_gains: Any = 0.0  # λ_gain in the gradient
    decoupled_embeddings: Any = 0.0  # λ_emb in the step
    decoupled_gains: Any = 0.0  # λ_gain in the step
    l1: Any = 0.0  # λ₁
    ahead_m: Any = 0.0  # p
    ahead_g: Any = 0.0  # q; 0: u is m/c₁
    gradient_trust: Any = 0.0  # η of LARS; 0: r is 1
    step_trust: Any = 0.0  # 1: r is ‖θ‖/‖u‖; 0: r is 1
    lion_m: Any = 0.0  # β1 of Lion
    lion_g: Any = 0.0  # 1 − β1 of Lion; 0: another optimizer
    muon_m: Any = 0.0  # γ of Muon
    muon_g: Any = 0.0  # 1 − γ of Muon
    muon: Any = 0.0  # 1: Muon for the hidden matrices
    updates: Any = 0.0  # t, from which c₁ and c₂ are computed, in Adam and its variants
    lora_b: Any = 0.0  # f of LoRA+; 0: LoRA's B have no rate of their own


# The row of an empty slot: no value changes, and no division is by zero.
IDLE = Coefficients(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)

_ADAPTIVE = Coefficients._fields.index("adaptive")
_ONE_MATRIX = Layout()


def update(
    theta: Tensor, m: Tensor, v: Tensor, g: Tensor, c: Coefficients, layout: Layout = _ONE_MATRIX
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the rule once.

    Args:
        theta: parameters, (K, ...), float32.
        m: running mean of the gradient, same shape.
        v: running mean of the squared gradient, same shape.
        g: gradient, already clipped, same shape; not changed.
        c: coefficients that broadcast against the parameters.
        layout: parts of the last dimension; by default one matrix.

    Returns:
        The new θ, m and v.
    """
    factors = layout.factors(theta.device)
    g = _penalized_gradient(theta, g, c, layout)
    before, m = m, c.a1 * m + c.b1 * g
    step = m / c.c1
    if _is_on(c.ahead_g):
        step = torch.where(_chosen(c.ahead_g), c.ahead_m * step + c.ahead_g * g, step)
    if _is_on(c.adaptive):
        v = c.a2 * v + c.b2 * (g * g)
        denominator = (v / c.c2).sqrt_()
        if factors is None:
            denominator.add_(c.eps)
        else:
            _units(denominator).add_(_column(c.eps * factors.eps))
        if isinstance(c.adaptive, Tensor):
            denominator = torch.where(c.adaptive > 0, denominator, 1.0)
        step /= denominator
    if _is_on(c.lion_g):
        step = torch.where(_chosen(c.lion_g), lion(before, g, c.lion_m, c.lion_g), step)
    if _is_on(c.muon):
        muon_(m, step, before, g, (c.muon_m, c.muon_g), _chosen(c.muon), layout.hidden)
    decay_factors = None if factors is None else factors.decay
    _add(step, theta, c.decoupled, layout.matrices, decay_factors)
    _add(step, theta, c.decoupled_embeddings, layout.embeddings, decay_factors)
    _add(step, theta, c.decoupled_gains, layout.gains, decay_factors)
    if _is_on(c.step_trust):
        step = layout.scale_(step, _step_trust(theta, step, c.step_trust, layout))
    _scale_lora_b(step, c.lora_b, layout)
    if factors is not None:
        step = (_column(c.learning_rate * factors.rate) * _units(step)).flatten(-2)
        return theta - step, m, v
    return theta - c.learning_rate * step, m, v


def _units(x: Tensor) -> Tensor:
    """Return a view of (..., P) as (..., P / 64, 64): the numbers of a unit have one factor."""
    return x.view(*x.shape[:-1], -1, UNIT)


def _column(factors: Tensor) -> Tensor:
    """Return factors of units, (..., P / 64), as factors of `_units`."""
    return factors.unsqueeze(-1)


def _penalized_gradient(theta: Tensor, g: Tensor, c: Coefficients, layout: Layout) -> Tensor:
    """Return the gradient with those of the penalties, by LARS's ratio; not in place."""
    decays = _coupled_decays(c, layout)
    if not any(_is_on(x) for x in (*(decay for decay, _ in decays), c.l1, c.gradient_trust)):
        return g
    g = g.clone()
    if _is_on(c.l1):
        for part in layout.matrices:
            g[..., part] += c.l1 * theta[..., part].sign()
    trust = _gradient_trust(theta, g, c, layout) if _is_on(c.gradient_trust) else None
    for decay, parts in decays:
        _add(g, theta, decay, parts)
    return g if trust is None else layout.scale_(g, trust)


def _coupled_decays(c: Coefficients, layout: Layout) -> list[tuple[Any, Parts]]:
    return [
        (c.coupled, layout.matrices),
        (c.coupled_embeddings, layout.embeddings),
        (c.coupled_gains, layout.gains),
    ]


def _add(x: Tensor, theta: Tensor, decay: Any, parts: Parts, factors: Tensor | None = None) -> None:
    """Add λ·θ to some parts of the last dimension of `x`, in place; λ has a factor per unit."""
    if not _is_on(decay):
        return
    for part in parts:
        if factors is None:
            x[..., part] += decay * theta[..., part]
        else:
            each = _column(decay * factors[part.start // UNIT : part.stop // UNIT])
            _units(x[..., part]).add_(each * _units(theta[..., part]))


def _scale_lora_b(step: Tensor, factor: Any, layout: Layout) -> None:
    """Multiply the step of LoRA's B by its factor, in place."""
    if _is_on(factor):
        for part in layout.lora_b:
            own = factor * step[..., part]
            step[..., part] = torch.where(_chosen(factor), own, step[..., part])


def _gradient_trust(theta: Tensor, g: Tensor, c: Coefficients, layout: Layout) -> Tensor:
    """Return LARS's ratio of each tensor of each slot, (K, N).

    η·‖θ‖/(‖g‖ + λ·‖θ‖), 1 where θ or g is zero. Source: You et al. 2017, section 4
    (arXiv:1708.03888).
    """
    size, slope = layout.norms(theta), layout.norms(g)  # (K, N)
    decay = torch.zeros_like(size)
    for (coefficient, _), members in zip(_coupled_decays(c, layout), layout.members, strict=True):
        if _is_on(coefficient):
            for index in members:
                decay[..., index : index + 1] = coefficient
    ratio = c.gradient_trust * size / (slope + decay * size)
    is_used = _chosen(c.gradient_trust) & (size > 0) & (slope > 0)
    return torch.where(is_used, ratio, 1.0)


def _step_trust(theta: Tensor, step: Tensor, is_lamb: Any, layout: Layout) -> Tensor:
    """Return LAMB's ratio of each tensor of each slot, (K, N).

    ‖θ‖/‖u‖, 1 where θ or u is zero. Source: You et al. 2019, algorithm 2 with φ(x) = x
    (arXiv:1904.00962).
    """
    size, length = layout.norms(theta), layout.norms(step)  # (K, N)
    is_used = _chosen(is_lamb) & (size > 0) & (length > 0)
    return torch.where(is_used, size / length, 1.0)


def lion(m: Tensor, g: Tensor, weight_m: Any, weight_g: Any) -> Tensor:
    """Return Lion's direction, sign(β1·m + (1−β1)·g), from the mean before this gradient.

    The mean itself is then updated with β2: m ← β2·m + (1−β2)·g.

    Source: Chen et al. 2023, program 1 (arXiv:2302.06675).
    """
    direction: Tensor = (weight_m * m + weight_g * g).sign_()
    return direction


def _chosen(x: Any) -> Tensor:
    """Return a bool per slot, True where a coefficient is not zero."""
    return torch.as_tensor(x) != 0


def _is_on(x: Any) -> bool:
    """True for tensors and non-zero numbers; the number 0 means that no slot uses the term."""
    return isinstance(x, Tensor) or x != 0


def stack_rows(rows: np.ndarray, device: torch.device | str) -> Coefficients:
    """Return the coefficients of K slots as columns, (K, 1) float32, for θ of (K, P).

    A column that is zero for all slots becomes the number 0, so that `update` skips its term.

    Args:
        rows: (K, C) float64, one `Coefficients` per slot.
        device: device of θ.
    """
    return columns(
        torch.from_numpy(rows.astype(np.float32)).to(device),
        [bool(column.any()) for column in rows.T],
        adaptive=bool(rows[:, _ADAPTIVE].all()),
    )


def columns(rows: Tensor, is_on: Sequence[bool], *, adaptive: bool) -> Coefficients:
    """Return coefficients on the device as columns, as `stack_rows`, without waiting for it.

    Args:
        rows: (K, C) float32.
        is_on: for each of the C columns, False if it is zero for all slots.
        adaptive: True if the column `adaptive` is 1 for all slots; it becomes the number 1.
    """
    values: list[Any] = [
        rows[:, index : index + 1] if on else 0.0 for index, on in enumerate(is_on)
    ]
    if adaptive:
        values[_ADAPTIVE] = 1.0
    return Coefficients(*values)
