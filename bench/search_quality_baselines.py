"""What a search must beat: a rule that trains once, and a search that anyone could write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from model.spec.architecture import Architecture
from tuner.space.parameter import Choice, Value
from tuner.space.space import SearchSpace

if TYPE_CHECKING:
    from search_quality_table import Table


def step_law(space: SearchSpace, architecture: Architecture, tokens: int) -> dict[str, Value]:
    """The defaults, with the learning rate and the batch size of Step Law.

    The nearest B that the space has, by ratio; α_max within its range. The authors end at a
    learning rate of 1e-5; here the default share of α_max stays.

    Args:
        space: that the draw is of.
        architecture: what is trained: RMSNorm, SwiGLU, as theirs.
        tokens: that it is trained for.

    Source: Li et al. 2025 (arXiv:2503.04715): η = 1.79 N^-0.713 D^0.307, B = 0.58 D^0.571 in
    tokens, with N the parameters without embeddings and D the tokens.
    """
    a = architecture
    attention = 2 * a.d_model * (a.d_model + a.d_model // a.n_heads * a.n_kv_heads)
    weights = a.n_layers * (attention + 3 * a.d_model * a.d_ff)
    rate = 1.79 * weights**-0.713 * tokens**0.307
    batch = 0.58 * tokens**0.571 / a.context_length
    draw = space.defaults()
    for parameter in space.searched:
        if parameter.name == "max_learning_rate":
            draw[parameter.label] = parameter.nearest(rate)
        elif parameter.name == "batch_size":
            sizes = cast(Choice, parameter.distribution).values
            draw[parameter.label] = min(sizes, key=lambda b: abs(math.log(float(b) / batch)))
    return draw


def one_report_then_top_k(
    table: Table, budgets: Sequence[float], seed: int, top_share: float = 0.5
) -> list[float]:
    """Train n configurations for one report, and go on with the k best of them to the end.

    Each budget is a run of its own, which knows from the start what it may spend.

    Args:
        table: of losses.
        budgets: in complete trials' worth of tokens.
        seed: of the order in which configurations are tried.
        top_share: of the tokens, what the k best get after their first report; at least one does.

    Returns:
        The best loss at the end for each budget; infinity where not even one could be finished.

    Source: Egele et al. 2024 (arXiv:2404.04111).
    """
    order = np.random.default_rng(seed).permutation(len(table.draws))
    first = np.nan_to_num(table.losses[:, 0], nan=np.inf)
    share = 1 / table.losses.shape[1]  # of a complete trial, until the first report
    found = []
    for budget in budgets:
        best = max(1, math.floor(budget * top_share / (1 - share)))
        tried = max(0, math.floor((budget - best * (1 - share)) / share + 1e-9))
        some = order[:tried]
        top = some[np.argsort(first[some], kind="stable")][:best]
        found.append(float(min(table.final[top], default=math.inf)))
    return found
