"""AdamW in one pass over memory, for one slot on a CPU: torch's own kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from model.optimizers.layout import Layout
from model.optimizers.update_rule import Coefficients

Tensors = Sequence[Tensor]


def is_plain_adamw(row: Coefficients) -> bool:
    """True if a row of numbers is AdamW with no feature that torch's kernel lacks."""
    other_features = (
        row.coupled, row.coupled_embeddings, row.coupled_gains, row.l1, row.ahead_g,
        row.gradient_trust, row.step_trust, row.lion_g, row.muon,
    )  # fmt: skip
    return row.updates > 0 and not any(other_features)


def adamw_(
    theta: Tensors, m: Tensors, v: Tensors, g: Tensors, row: Coefficients, layout: Layout
) -> None:
    """Update one slot in place.

    Args:
        theta: parameters, one float32 vector each, in the order of `layout.tensors`.
        m: running means of the gradients, as `theta`.
        v: running means of the squared gradients, as `theta`.
        g: gradients, already clipped, as `theta`.
        row: row of numbers for which `is_plain_adamw` is true.
        layout: parts of the parameters, each with its decay.

    Source: Loshchilov and Hutter 2017, algorithm 2 (arXiv:1711.05101), as torch computes it.
    """
    # by the kind of a group
    decays = row.decoupled, row.decoupled_embeddings, row.decoupled_gains, row.decoupled
    rates = 1.0, 1.0, 1.0, row.lora_b or 1.0
    before = torch.tensor(float(row.updates - 1))  # torch adds 1
    for kind, factors, members in layout.groups:
        tensors = [[x[i] for i in members] for x in (theta, g, m, v)]
        adamw(
            tensors[0],
            tensors[1],
            tensors[2],
            tensors[3],
            [],
            [before.clone() for _ in members],
            fused=True,
            amsgrad=False,
            beta1=row.a1,
            beta2=row.a2,
            lr=row.learning_rate * factors.rate * rates[kind],
            weight_decay=decays[kind] * factors.decay,
            eps=row.eps * factors.eps,
            maximize=False,
        )
