"""Feed-forward layers of a block, and their registry.

K = slots in a stack, D = width, F = inner width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from model.network.layers import Weights, linear, linears

Activation = Callable[[Tensor], Tensor]
FeedForward = Callable[[Weights, Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    """Return x·σ(x), element by element. Source: Elfwing et al. 2017 (arXiv:1702.03118)."""
    return F.silu(x)


def gelu(x: Tensor) -> Tensor:
    """Return x·Φ(x), exact, without tanh. Source: Hendrycks and Gimpel 2016 (arXiv:1606.08415)."""
    return F.gelu(x)


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
    gate, up = linears([w1, w3], x)
    return linear(w2, silu(gate) * up)


def geglu(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor) -> Tensor:
    """Apply the gated feed-forward layer w2·(gelu(w1·x) ⊙ w3·x); shapes as for `swiglu`."""
    gate, up = linears([w1, w3], x)
    return linear(w2, gelu(gate) * up)


def _gated(layer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> FeedForward:
    return lambda w, x: layer(w["ffn.w1.weight"], w["ffn.w2.weight"], w["ffn.w3.weight"], x)


def _plain(activation: Activation) -> FeedForward:
    """Return the layer w2·activation(w1·x).

    Source: Vaswani et al. 2017, equation 2 (arXiv:1706.03762), without biases.
    """
    return lambda w, x: linear(w["ffn.w2.weight"], activation(linear(w["ffn.w1.weight"], x)))


# (weights of a block, x) → output of the layer
FEED_FORWARDS: Mapping[str, FeedForward] = {
    "swiglu": _gated(swiglu),
    "geglu": _gated(geglu),
    "relu": _plain(relu),
    "gelu": _plain(gelu),
    "silu": _plain(silu),
}
