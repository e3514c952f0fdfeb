"""Learning rate over updates: pure functions of the update's number and the hyperparameters.

Updates are counted from 1 in training, so that the first one already moves and update T_cycle
runs at α_min.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from model.hyperparameters import Hyperparameters


def lr_cosine_schedule(
    it: int, max_lr: float, min_lr: float, warmup_iters: int, cosine_cycle_iters: int
) -> float:
    """Linear warm-up, a cosine down to the floor, then the floor.

    Args:
        it: the iteration, 0 or above.
        max_lr: α_max, reached at `warmup_iters`.
        min_lr: α_min, reached at `cosine_cycle_iters` and kept.
        warmup_iters: T_warmup.
        cosine_cycle_iters: T_cycle, at least T_warmup.

    Returns:
        The learning rate.

    Source: Loshchilov and Hutter 2016, equation 5, one cycle (arXiv:1608.03983).
    """
    if it < warmup_iters:
        return max_lr * it / warmup_iters
    if it >= cosine_cycle_iters:
        return max_lr if it == warmup_iters == cosine_cycle_iters else min_lr
    share = (it - warmup_iters) / (cosine_cycle_iters - warmup_iters)
    return min_lr + 0.5 * (1 + math.cos(math.pi * share)) * (max_lr - min_lr)


def _cosine(step: int, h: Hyperparameters) -> float:
    return lr_cosine_schedule(
        step, h.max_learning_rate, h.min_learning_rate, h.warmup_steps, h.cycle_steps
    )


def _constant(step: int, h: Hyperparameters) -> float:
    """α after a linear warm-up."""
    return h.learning_rate * min(1.0, step / h.warmup_steps if h.warmup_steps else 1.0)


SCHEDULES: Mapping[str, Callable[[int, Hyperparameters], float]] = {
    "constant": _constant,
    "cosine": _cosine,
}


def learning_rate(step: int, hyperparameters: Hyperparameters) -> float:
    """α_t of one update, counted from 1."""
    return SCHEDULES[hyperparameters.schedule](step, hyperparameters)
