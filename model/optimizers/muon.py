"""Muon: momentum with orthogonalized matrices, all matrices of one shape in all slots at once.

K = slots in a stack, P = padded parameters of one model, M = matrices of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.optimizers.layout import Hidden

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at 0, so that few rounds suffice
_ROUNDS = 5
_TINY = 1e-7  # smallest divisor of a norm
_RMS = 0.2  # root mean square of AdamW's steps, to which orthogonal steps are scaled


def orthogonalize(x: Tensor) -> Tensor:
    """Return the nearest matrices with singular values near 1 (0.7 to 1.2).

    Args:
        x: (M, o, i).

    Returns:
        (M, o, i); zero for a zero matrix.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers", in float32 where the
    original takes bfloat16.
    """
    is_tall = x.shape[1] > x.shape[2]
    y = (x.transpose(1, 2) if is_tall else x).contiguous()
    norm = y.flatten(1).square().sum(1).sqrt()  # (M,)
    y = y / norm.clamp(min=_TINY).view(-1, 1, 1)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        gram = torch.bmm(y, y.transpose(1, 2))
        y = a * y + torch.bmm(b * gram + c * torch.bmm(gram, gram), y)
    return y.transpose(1, 2) if is_tall else y


def muon_(
    m: Tensor,
    step: Tensor,
    before: Tensor,
    g: Tensor,
    weights: tuple[Tensor, Tensor],
    is_muon: Tensor,
    hidden: Sequence[Hidden],
) -> None:
    """Write Muon's means and directions of the hidden matrices into `m` and `step`, in place.

    m ← γ·m + (1−γ)·g; u ← 0.2·√max(o, i)·orthogonal(γ·m + (1−γ)·g), with Nesterov's look-ahead.
    The scale gives a step the size of AdamW's, so that one α and one λ serve both.

    Args:
        m: (K, P), running means of all slots.
        step: (K, P), directions of all slots.
        before: (K, P), `m` before this update.
        g: (K, P), gradients.
        weights: γ and 1−γ, (K, 1) each.
        is_muon: (K, 1) bool, slots that use Muon; the others keep their values.
        hidden: the hidden matrices; their factors multiply u.

    Source: Jordan et al. 2024; the scale of Liu et al. 2025, equation 4 (arXiv:2502.16982).
    """
    gamma, rest = weights
    for shape, offsets, factor in hidden:
        size = math.prod(shape)
        parts = [slice(start, start + size) for start in offsets]
        ahead = []
        for part in parts:
            mean = gamma * before[:, part] + rest * g[:, part]
            m[:, part] = torch.where(is_muon, mean, m[:, part])
            ahead.append(gamma * mean + rest * g[:, part])  # (K, o·i)
        batch = torch.stack(ahead).view(-1, *shape)  # (M·K, o, i)
        directions = orthogonalize(batch) * (_RMS * math.sqrt(max(shape)) * factor)
        for part, direction in zip(parts, directions.reshape(len(parts), -1, size), strict=True):
            step[:, part] = torch.where(is_muon, direction, step[:, part])
