"""Feed-forward layers of a block, and their registry.

K = slots in a stack, D = width, F = inner width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from model.network.layers import Weights
from model.network.lora import projections

Activation = Callable[[Tensor], Tensor]
FeedForward = Callable[[Weights, Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    """Return x·σ(x), element by element. Source: Elfwing et al. 2017 (arXiv:1702.03118)."""
    return F.silu(x)


def gelu(x: Tensor) -> Tensor:
    """Return x·Φ(x), exact, without tanh. Source: Hendrycks and Gimpel 2016 (arXiv:1606.08415)."""
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU approximated by tanh, as GPT-2 computes it; the source is that of `gelu`."""
    return F.gelu(x, approximate="tanh")


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), element by element."""
    return F.relu(x)


def swiglu(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor) -> Tensor:
    """Apply the gated feed-forward layer w2·(silu(w1·x) ⊙ w3·x).

    Args:
        w1: gate, (K, F, D).
        w2: down, (K, D, F).
        w3: up, (K, F, D).
        x: (K, ..., D).

    Returns:
        (K, ..., D).

    Source: Shazeer 2020, equation 6 (arXiv:2002.05202).
    """
    weights = {"ffn.w1.weight": w1, "ffn.w2.weight": w2, "ffn.w3.weight": w3}
    return FEED_FORWARDS["swiglu"](weights, x)


def _gated(activation: Activation) -> FeedForward:
    """Return the layer w2·(activation(w1·x) ⊙ w3·x), with the biases that there are."""

    def layer(w: Weights, x: Tensor) -> Tensor:
        gate, up = projections(w, ["ffn.w1", "ffn.w3"], x)
        return projections(w, ["ffn.w2"], activation(gate) * up)[0]

    return layer


def _plain(activation: Activation) -> FeedForward:
    """Return the layer w2·activation(w1·x), with the biases that there are.

    Source: Vaswani et al. 2017, equation 2 (arXiv:1706.03762).
    """

    def layer(w: Weights, x: Tensor) -> Tensor:
        (inner,) = projections(w, ["ffn.w1"], x)
        return projections(w, ["ffn.w2"], activation(inner))[0]

    return layer


# (weights of a block, x) → output of the layer
FEED_FORWARDS: Mapping[str, FeedForward] = {
    "swiglu": _gated(silu),
    "geglu": _gated(gelu),
    "relu": _plain(relu),
    "gelu": _plain(gelu),
    "gelu_tanh": _plain(gelu_tanh),
    "silu": _plain(silu),
}
