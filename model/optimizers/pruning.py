"""Gradual magnitude pruning: the smallest weights of each matrix become zero and stay zero.

A slot needs no mask: once pruning has begun, a weight that is zero is pruned.

K = slots in a stack, P = padded parameters of one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from model.spec.hyperparameters import Hyperparameters

# Values of `pruning_of` for updates that prune no further weights.
KEEP = -1.0  # pruned weights stay zero
OFF = 0.0  # the trial does not prune, or not yet


def target_sparsity(step: int, h: Hyperparameters) -> float:
    """Return the share of each matrix that should be zero after an update; it rises as a cubic.

    s_t = s_final·(1 − (1 − (t−t₀)/(t₁−t₀))³) from t₀ = T_prune_start to t₁ = T_prune_end.

    Source: Zhu and Gupta 2017, equation 1 with s_i = 0 (arXiv:1710.01878).
    """
    if step < h.prune_start_steps:
        return 0.0
    if step >= h.prune_end_steps:
        return h.target_sparsity
    share = (step - h.prune_start_steps) / (h.prune_end_steps - h.prune_start_steps)
    return float(h.target_sparsity * (1 - (1 - share) ** 3))


def pruning_of(step: int, h: Hyperparameters) -> float:
    """Return the share to which an update prunes, above 0, or KEEP or OFF.

    Weights are pruned every ΔT_prune updates from T_prune_start on, and at T_prune_end for the
    last time.
    """
    if not h.target_sparsity or step < h.prune_start_steps:
        return OFF
    since = step - h.prune_start_steps
    is_in_schedule = since % h.prune_interval_steps == 0 and step <= h.prune_end_steps
    is_pruning = is_in_schedule or step == h.prune_end_steps
    share = target_sparsity(step, h) if is_pruning else 0.0
    return share or KEEP


def mask_(x: Tensor, theta: Tensor, slots: Iterable[int], parts: Sequence[slice]) -> None:
    """Set `x` to zero at the pruned weights of some slots, in place.

    Args:
        x: (K, P), gradients, new weights or averages.
        theta: (K, P), weights.
        slots: slots that prune.
        parts: slices of the matrices.
    """
    for slot in slots:
        for part in parts:
            x[slot, part].masked_fill_(theta[slot, part] == 0, 0)


def prune_(theta: Tensor, share: float, weights: Sequence[slice]) -> None:
    """Set the smallest weights of each matrix of one slot to zero, in place.

    Args:
        theta: (P,), weights.
        share: share of each matrix, rounded to a number of weights.
        weights: slice of each matrix, without padding.
    """
    for part in weights:
        sizes = theta[part].abs()
        count = round(share * len(sizes))
        if count:
            threshold = torch.sort(sizes).values[count - 1]
            theta[part].masked_fill_(sizes <= threshold, 0)


def sparsity(theta: Tensor, weights: Sequence[slice]) -> float:
    """Return the share of zeros in the matrices of one slot, (P,)."""
    zeros = torch.stack([(theta[part] == 0).sum() for part in weights]).sum().item()  # one wait
    return float(zeros / sum(part.stop - part.start for part in weights))
