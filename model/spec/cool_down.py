"""Trials that share their first updates: budgets of one trunk with the schedule `wsd`.

The rate of `wsd` is constant between the warm-up and the cool-down, so trials that differ only in
T_total, and in what follows from it, train the same updates up to the first of their cool-downs.
The longest is the *trunk*. A *branch* is the ordinary trial of a shorter budget, which may begin
from a state of the trunk instead of update 0: its numbers are the same bit for bit.

Source: Hägele et al. 2024, section 4 (arXiv:2405.18392).
"""

from __future__ import annotations

from model.spec.hyperparameters import Hyperparameters
from model.spec.trial import TrialSpec

# Rows that no update before the cool-down reads, if the schedule is wsd.
_OF_COOL_DOWN = (
    "total_steps", "epochs", "cooldown_steps", "cooldown_shape", "min_learning_rate",
    "cycle_steps", "decay_steps",
)  # fmt: skip
_OF_PRUNING = ("prune_start_steps", "prune_end_steps", "prune_interval_steps")


def last_shared_report(spec: TrialSpec) -> int:
    """Return the update of the last report before the cool-down; 0 if there is none.

    A longer trial with equal first updates reports after this update too.
    """
    h = spec.hyperparameters
    begin = h.total_steps - h.cooldown_steps
    return max((step for step in spec.report_steps[:-1] if step <= begin), default=0)


def differing_rows(h: Hyperparameters, other: Hyperparameters) -> list[str]:
    """Return the rows that differ and that an update before the cool-down may read."""
    prunes = h.target_sparsity or other.target_sparsity
    free = _OF_COOL_DOWN if prunes else _OF_COOL_DOWN + _OF_PRUNING
    return [name for name, value in h if name not in free and getattr(other, name) != value]


def num_shared_updates(spec: TrialSpec, other: TrialSpec) -> int:
    """Return how many first updates two trials have in common, with their reports.

    After each of these updates the states of both are equal bit for bit.

    Returns:
        Updates up to the first cool-down of the two; 0 if they differ in anything else than T_total
        and rows that only a cool-down reads, or if the schedule is not `wsd`.
    """
    h, g = spec.hyperparameters, other.hyperparameters
    if h.schedule != "wsd" or spec.continues or other.continues or differing_rows(h, g):
        return 0
    if other.model_copy(update={"hyperparameters": h}).hash != spec.hash:
        return 0
    return min(h.total_steps - h.cooldown_steps, g.total_steps - g.cooldown_steps)
