"""Sizes of a model's activations, which a proxy must share with its target.

K = slots in a stack, B = sequences, T = tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.network.layers import Weights
from model.network.transformer import LanguageModel
from model.spec.architecture import Architecture

# name of what `LanguageModel.activations` shows → name of the quantity
_NAMES = {"ln1": "attention", "ln2": "feed-forward"}
QUANTITIES = ("scores", "attention", "feed-forward", "stream", "logits")


@torch.no_grad()
def coordinates(a: Architecture, weights: Weights, ids: Tensor) -> dict[str, Tensor]:
    """Return the mean absolute values of a language model's activations.

    Layers of all blocks are averaged; what a block adds is multiplied by the number of blocks, so
    that the sizes of models of different depths can be compared.

    Args:
        a: architecture of a language model.
        weights: by the names of `parameter_shapes`, each with a leading K.
        ids: (K, B, T) int64.

    Returns:
        Quantity in `QUANTITIES` → (K,).

    Source: Yang et al. 2022, appendix D.1 (arXiv:2203.03466).
    """
    sizes: dict[str, list[Tensor]] = {}

    def observe(name: str, x: Tensor) -> None:
        mean = x.float().abs().reshape(len(ids), -1).mean(1)
        is_added = name in _NAMES
        sizes.setdefault(_NAMES.get(name, name), []).append(mean * (a.n_layers if is_added else 1))

    model = LanguageModel(a)
    x = model.activations(weights, ids, observe=observe)
    observe("logits", model.head(weights, x))
    return {name: torch.stack(sizes[name]).mean(0) for name in QUANTITIES}
