"""Published laws of the best learning rate and batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.spec.architecture import Architecture, parameter_shapes
from model.spec.parameter_names import is_decayed


@dataclass(frozen=True)
class PublishedLaw:
    """A power law c·N^n·D^d of a setting, with the range of the models that it was fitted to.

    Attributes:
        name: name of the law, and where it is published.
        setting: row of the symbol table; a batch is in tokens.
        factor: c.
        exponents: n and d.
        weights: smallest and largest N, weights without embeddings.
        tokens: smallest and largest D.
    """

    name: str
    setting: str
    factor: float
    exponents: tuple[float, float]
    weights: tuple[float, float]
    tokens: tuple[float, float]

    def log_value(self, log_weights: float, log_tokens: float) -> float:
        """Return the logarithm of the best value."""
        n, d = self.exponents
        return math.log(self.factor) + n * log_weights + d * log_tokens

    def holds_at(self, weights: float, tokens: float) -> bool:
        """Return whether a model is in the range of the law."""
        return (
            self.weights[0] <= weights <= self.weights[1]
            and self.tokens[0] <= tokens <= self.tokens[1]
        )


_STEP = "Step Law (Li et al. 2025, arXiv:2503.04715)"
_LINES = "Power Lines (Bergsma et al. 2025, arXiv:2505.13738)"
_WEIGHTS, _TOKENS = (6e7, 1.1e9), (2e9, 1e11)
LAWS = (
    PublishedLaw(_STEP, "max_learning_rate", 1.79, (-0.713, 0.307), _WEIGHTS, _TOKENS),
    PublishedLaw(_STEP, "batch_size", 0.58, (0.0, 0.571), _WEIGHTS, _TOKENS),
    # λ = B/(α·D·t) with the Step Law's α and B, and t = 1.084·(D/N)^−0.527, the share of the
    # training over which AdamW averages the weights
    PublishedLaw(_LINES, "weight_decay", 0.299, (0.186, -0.209), (1.1e8, 3.3e9), _TOKENS),
)


def block_weights(a: Architecture) -> int:
    """Return N as in the laws: the weights of all matrices of the blocks, without embeddings."""
    shapes = parameter_shapes(a)
    return sum(
        math.prod(shapes[name])
        for name in shapes
        if name.startswith("layers.") and is_decayed(name)
    )
