"""Step Law: learning rate and batch size from the numbers of parameters and tokens."""

from __future__ import annotations

import math
from typing import cast

from model.spec.architecture import Architecture
from tuner.knowledge.laws import LAWS, block_weights
from tuner.space.parameter import Choice, Value
from tuner.space.space import SearchSpace


def step_law(space: SearchSpace, architecture: Architecture, tokens: int) -> dict[str, Value]:
    """Return the defaults with the learning rate and the batch size of Step Law.

    B is the nearest choice of the space by ratio; α_max is clipped to its range. The authors end at
    a learning rate of 1e-5; the draw keeps the default share of α_max.

    Args:
        space: search space of the draw.
        architecture: trained architecture, with RMSNorm and SwiGLU as the authors' models.
        tokens: number of training tokens.

    Source: Li et al. 2025 (arXiv:2503.04715): η = 1.79 N^-0.713 D^0.307, B = 0.58 D^0.571 in
    tokens, with N the parameters without embeddings and D the tokens.
    """
    size = math.log(block_weights(architecture)), math.log(tokens)
    best = {law.setting: math.exp(law.log_value(*size)) for law in LAWS}
    rate, batch = best["max_learning_rate"], best["batch_size"] / architecture.context_length
    draw = space.defaults()
    for parameter in space.searched:
        if parameter.name == "max_learning_rate":
            draw[parameter.label] = parameter.nearest(rate)
        elif parameter.name == "batch_size":
            sizes = cast(Choice, parameter.distribution).values
            draw[parameter.label] = min(sizes, key=lambda b: abs(math.log(float(b) / batch)))
    return draw
