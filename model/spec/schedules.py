"""Learning rate over updates: pure functions of the update's number and the hyperparameters.

`plateau` also reads the trial's own validation reports, and `noam` the width of the model. α is
the rate of `constant`; α_max is the peak of all others except `noam`. Every schedule begins with
the warm-up, α_t = α·t/T_warmup for t < T_warmup.

Training counts updates from 1, so that the rate of the first update is above 0 and update T_cycle
has the rate α_min.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from model.spec.hyperparameters import Hyperparameters

_PLATEAU_THRESHOLD = 1e-4  # smaller relative improvements do not count


class ScheduleContext(NamedTuple):
    """Values that a schedule may read in addition to the update and the hyperparameters.

    Attributes:
        d_model: width of the model; read by `noam`.
        val_losses: of the trial's reports before this update, in order; read by `plateau`.
    """

    d_model: int = 0
    val_losses: Sequence[float] = ()


_NO_CONTEXT = ScheduleContext()


def lr_cosine_schedule(
    it: int, max_lr: float, min_lr: float, warmup_iters: int, cosine_cycle_iters: int
) -> float:
    """Return the rate of a linear warm-up, a cosine down to the minimum, then the minimum.

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


def _cosine(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """Loshchilov and Hutter 2016, one cycle: see `lr_cosine_schedule`."""
    return lr_cosine_schedule(
        step, h.max_learning_rate, h.min_learning_rate, h.warmup_steps, h.cycle_steps
    )


def _constant(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """α after a linear warm-up."""
    return h.learning_rate * _warm(step, h)


def _linear(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """Straight line from α_max at T_warmup to α_min at T_cycle, then α_min.

    Source: Howard and Ruder 2018, section 3.2, without restarts (arXiv:1801.06146).
    """
    if step < h.warmup_steps or h.cycle_steps == step == h.warmup_steps:
        return h.max_learning_rate * _warm(step, h)
    if step >= h.cycle_steps:
        return h.min_learning_rate
    share = (step - h.warmup_steps) / (h.cycle_steps - h.warmup_steps)
    return h.min_learning_rate + (1 - share) * (h.max_learning_rate - h.min_learning_rate)


def _step(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """α_max·f^⌊(t−T_warmup)/T_decay⌋. Source: Krizhevsky et al. 2012, section 5, and torch."""
    falls = max(0, step - h.warmup_steps) // h.decay_steps
    return h.max_learning_rate * _warm(step, h) * float(h.decay_factor**falls)


def _exponential(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """α_max·f^((t−T_warmup)/T_decay): a smooth `step`.

    torch's ExponentialLR has T_decay = 1. Source: Senior et al. 2013, section 3.
    """
    falls = max(0, step - h.warmup_steps) / h.decay_steps
    return h.max_learning_rate * _warm(step, h) * float(h.decay_factor**falls)


def _inverse_sqrt(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """α_max·√(T_warmup/t) after the warm-up; without warm-up α_max/√t.

    This is `noam` with s = α_max·√(d_model·T_warmup): the original Transformer's schedule, given by
    its peak.
    """
    falls = math.sqrt(max(1, h.warmup_steps) / max(1, h.warmup_steps, step))
    return h.max_learning_rate * _warm(step, h) * falls


def _noam(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """s·d_model^(−½)·min(t^(−½), t·T_warmup^(−3/2)); neither α nor α_max enters.

    Source: Vaswani et al. 2017, equation 3, where s = 1 (arXiv:1706.03762).
    """
    if not context.d_model:
        raise ValueError("the schedule noam needs d_model")
    rise = step * max(1, h.warmup_steps) ** -1.5
    return float(h.noam_factor * context.d_model**-0.5 * min(max(1, step) ** -0.5, rise))


def _cosine_restarts(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """Cosines from α_max to α_min, each T_mult times as long as the one before.

    The first cosine ends at update T_cycle with α_min, as `cosine` does; the next update is the
    first of the next cycle. torch's CosineAnnealingWarmRestarts gives α_max at the ends of cycles,
    and equal rates elsewhere. Source: Loshchilov and Hutter 2016, equation 5 (arXiv:1608.03983).
    """
    length: float = h.cycle_steps - h.warmup_steps
    begin: float = h.warmup_steps
    if h.cycle_multiplier == 1 and step > h.cycle_steps and length:
        begin += (math.ceil((step - begin) / length) - 1) * length
    while length and step > begin + length:
        begin, length = begin + length, length * h.cycle_multiplier
    if step <= h.cycle_steps or not length:
        return _cosine(step, h, context)
    swing = h.max_learning_rate - h.min_learning_rate
    cosine = math.cos(math.pi * (step - begin) / length)
    return h.min_learning_rate + 0.5 * (1 + cosine) * swing


def _wsd(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """Warm-up, then α_max, then a cool-down to α_min over the last T_cooldown updates.

    The cool-down has the shape 1−s or 1−√s, where s is the completed share of the cool-down.
    Source: Hägele et al. 2024, section 3 (arXiv:2405.18392), who cool down to 0.
    """
    begin = h.total_steps - h.cooldown_steps
    if step <= begin:
        return h.max_learning_rate * _warm(step, h)
    share = min(1.0, (step - begin) / h.cooldown_steps)
    left = 1 - (share if h.cooldown_shape == "linear" else math.sqrt(share))
    return h.min_learning_rate + left * (h.max_learning_rate - h.min_learning_rate)


def _plateau(step: int, h: Hyperparameters, context: ScheduleContext) -> float:
    """α_max·f^(reductions so far). Source: torch's ReduceLROnPlateau, mode min, relative."""
    falls = reductions(context.val_losses, h.plateau_patience, h.plateau_cooldown)
    return h.max_learning_rate * _warm(step, h) * h.decay_factor**falls


def reductions(val_losses: Sequence[float], patience: int, cooldown: int) -> int:
    """Return the number of reductions of the learning rate that a trial's losses have caused.

    A report is bad unless its loss is below the best one by a share of 1e-4. After more than
    `patience` bad reports in a row the rate is reduced, and the next `cooldown` reports do not
    count as bad.

    Args:
        val_losses: validation losses of all reports so far, in order.
        patience: bad reports in a row that do not reduce the rate.
        cooldown: reports after a reduction that do not count.
    """
    best, bad, rest, count = math.inf, 0, 0, 0
    for loss in val_losses:
        if loss < best * (1 - _PLATEAU_THRESHOLD):
            best, bad = loss, 0
        else:
            bad += 1
        if rest:
            rest, bad = rest - 1, 0
        if bad > patience:
            count, bad, rest = count + 1, 0, cooldown
    return count


def _warm(step: int, h: Hyperparameters) -> float:
    """Return the share of the rate that the warm-up has reached."""
    return min(1.0, step / h.warmup_steps if h.warmup_steps else 1.0)


SCHEDULES: Mapping[str, Callable[[int, Hyperparameters, ScheduleContext], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "exponential": _exponential,
    "inverse_sqrt": _inverse_sqrt,
    "linear": _linear,
    "noam": _noam,
    "plateau": _plateau,
    "step": _step,
    "wsd": _wsd,
}


def learning_rate(
    step: int, hyperparameters: Hyperparameters, context: ScheduleContext = _NO_CONTEXT
) -> float:
    """Return α_t of one update, counted from 1.

    Raises:
        ValueError: if the schedule is `noam` and d_model is not known.
    """
    return SCHEDULES[hyperparameters.schedule](step, hyperparameters, context)
