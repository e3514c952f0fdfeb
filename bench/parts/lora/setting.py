"""What both sides train: a Llama of random weights, LoRA's settings, and random tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

VOCAB, RANK, ALPHA, RATE, WARM_UP = 2_048, 8, 16.0, 1e-3, 2


class Size(NamedTuple):
    """Sizes of a model and of a tick.

    Attributes:
        model: entries of `Architecture`.
        batch: sequences of a tick, which is an update.
    """

    model: dict[str, Any]
    batch: int


SIZES = {
    "tiny": Size({"d_model": 32, "n_layers": 1, "n_heads": 2, "d_ff": 64, "context_length": 16}, 2),
    "10M": Size(
        {"d_model": 320, "n_layers": 8, "n_heads": 5, "d_ff": 896, "context_length": 128}, 4
    ),
    # SmolLM2-135M with fewer ids
    "106M": Size(
        {
            "d_model": 576,
            "n_layers": 30,
            "n_heads": 9,
            "n_kv_heads": 3,
            "d_ff": 1536,
            "context_length": 512,
        },
        4,
    ),
}
