"""AdamW in one pass over memory, for one slot on a CPU: torch's own kernel.

P = padded parameters of one model.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from model.optimizers.layout import Layout
from model.optimizers.rule import Coefficients


def fits(row: Coefficients) -> bool:
    """Whether a row, of numbers, is AdamW without anything that torch's does not know."""
    others = (
        row.coupled, row.coupled_embeddings, row.coupled_gains, row.l1, row.ahead_g,
        row.gradient_trust, row.step_trust, row.lion_g, row.muon,
    )  # fmt: skip
    return row.updates > 0 and not any(others)


def adamw_(
    theta: Tensor, m: Tensor, v: Tensor, g: Tensor, row: Coefficients, layout: Layout
) -> None:
    """Update one slot in place.

    Args:
        theta: parameters, (P,) float32.
        m: running mean of the gradient, (P,).
        v: running mean of its square, (P,).
        g: gradient, already clipped, (P,).
        row: of numbers, which `fits`.
        layout: which parts have which decay.

    Source: Loshchilov and Hutter 2017, algorithm 2 (arXiv:1711.05101), as torch computes it.
    """
    for decay, parts in (
        (row.decoupled, layout.matrices),
        (row.decoupled_embeddings, layout.embeddings),
        (row.decoupled_gains, layout.gains),
    ):
        if not parts:
            continue
        tensors = [[x[part] for part in parts] for x in (theta, g, m, v)]
        adamw(
            tensors[0],
            tensors[1],
            tensors[2],
            tensors[3],
            [],
            [torch.tensor(float(row.updates - 1)) for _ in parts],  # torch adds the 1
            fused=True,
            amsgrad=False,
            beta1=row.a1,
            beta2=row.a2,
            lr=row.learning_rate,
            weight_decay=decay,
            eps=row.eps,
            maximize=False,
        )
