"""Baseline of search_quality.py: a simple strategy that a search must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from parts.search_quality.table import Table


def one_report_then_top_k(
    table: Table, budgets: Sequence[float], seed: int, top_share: float = 0.5
) -> list[float]:
    """Train n configurations for one report, and continue the k best of them to the end.

    Each budget is a run of its own, which knows its budget from the start.

    Args:
        table: losses of the configurations.
        budgets: budgets in tokens of complete trials.
        seed: seed of the order in which configurations are tried.
        top_share: share of the tokens for the k best after their first report; k is at least 1.

    Returns:
        The best final loss for each budget; infinity if no configuration could be finished.

    Source: Egele et al. 2024 (arXiv:2404.04111).
    """
    order = np.random.default_rng(seed).permutation(len(table.draws))
    first = np.nan_to_num(table.losses[:, 0], nan=np.inf)
    share = 1 / table.losses.shape[1]  # tokens of the first report, in complete trials
    best_losses = []
    for budget in budgets:
        best = max(1, math.floor(budget * top_share / (1 - share)))
        tried = max(0, math.floor((budget - best * (1 - share)) / share + 1e-9))
        sample = order[:tried]
        top = sample[np.argsort(first[sample], kind="stable")][:best]
        best_losses.append(float(min(table.final[top], default=math.inf)))
    return best_losses
