"""Choices of an architecture: values, where they have an effect, and a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

GATED = ("swiglu", "geglu")  # activations of feed-forward layers with a gate
QKV = ("q_proj", "k_proj", "v_proj")
RELATIVE_BUCKETS = 32  # buckets of distances in the relative position bias
Activation = Literal["swiglu", "geglu", "relu", "gelu", "gelu_tanh", "silu"]
Position = Literal["rope", "sinusoidal", "learned", "alibi", "relative", "none"]


# entry → other entry → values of the other entry for which the first has an effect; entries that
# are not listed always have one
_SCALED = {"rope_scaling": ("linear", "llama3")}
_LLAMA3 = {"rope_scaling": ("llama3",)}
USED_WHEN: Mapping[str, Mapping[str, tuple[str | bool, ...]]] = {
    "rope_theta": {"position": ("rope",)}, "rope_scaling": {"position": ("rope",)},
    "rope_factor": _SCALED, "rope_original_length": _LLAMA3, "rope_low_frequency": _LLAMA3,
    "rope_high_frequency": _LLAMA3, "scaled_head": {"tied_embeddings": (True,)},
}  # fmt: skip


def default_d_ff(d_model: int, activation: Activation = "swiglu") -> int:
    """Return the default inner width of the feed-forward layer.

    A gated layer has three matrices and gets 8/3·d_model, rounded to the nearest multiple of 64. A
    plain layer has two matrices and gets 3/2 of that, about 4·d_model, so that both have the same
    number of parameters.

    Source: Shazeer 2020, section 2 (arXiv:2002.05202): ⅔ of the usual 4·d_model.
    """
    gated = max(64, 64 * round(8 * d_model / 3 / 64))
    return gated if activation in GATED else 3 * gated // 2


@dataclass(frozen=True)
class Tower:
    """An encoder or a decoder: the blocks that one kind of sequence passes through.

    Attributes:
        prefix: prefix of the names of its weights.
        n_layers: number of blocks.
        max_length: length of the longest sequence, in tokens.
        is_causal: True if a token attends only to itself and earlier tokens.
        reads_memory: True if its blocks attend to the output of an encoder.
    """

    prefix: str
    n_layers: int
    max_length: int
    is_causal: bool
    reads_memory: bool = False
