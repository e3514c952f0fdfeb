"""Architectures to test: each choice alone, and random mixes of all of them."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

# Each entry changes one choice of the default model, or two that belong together.
SINGLE: dict[str, dict[str, Any]] = {
    "default": {},
    "one kv head": {"n_kv_heads": 1},
    "shared kv heads": {"n_heads": 4, "n_kv_heads": 2},
    "geglu": {"activation": "geglu"},
    "relu": {"activation": "relu"},
    "gelu": {"activation": "gelu"},
    "gelu of tanh": {"activation": "gelu_tanh"},
    "silu": {"activation": "silu"},
    "sinusoidal": {"position": "sinusoidal"},
    "learned": {"position": "learned"},
    "alibi": {"position": "alibi"},
    "alibi of six": {"position": "alibi", "n_heads": 6},
    "relative": {"position": "relative"},
    "no position": {"position": "none"},
    "layernorm": {"norm": "layernorm"},
    "post-norm": {"norm_placement": "post"},
    "original": {
        "norm_placement": "post", "norm": "layernorm", "activation": "relu",
        "position": "sinusoidal", "tied_embeddings": True,
    },
    "qk-norm": {"qk_norm": True},
    "tied": {"tied_embeddings": True},
    "tied without a factor": {"tied_embeddings": True, "scaled_head": False},
    "wide heads": {"head_width": 20, "n_heads": 2},
    "biases of q, k, v": {"biases": "qkv", "norm_eps": 1e-3},
    "linear rope": {"rope_scaling": "linear", "rope_factor": 4.0},
    "llama3 rope": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_length": 32},
    "gpt2": {
        "biases": "all", "norm": "layernorm", "activation": "gelu_tanh", "position": "learned",
        "tied_embeddings": True, "scaled_head": False,
    },
    "soft cap": {"logit_soft_cap": 2.0},
    "documents": {"attend_across_documents": False},
    "documents and alibi": {"attend_across_documents": False, "position": "alibi"},
    "documents and relative": {"attend_across_documents": False, "position": "relative"},
}  # fmt: skip
POSITIONS = ["rope", "sinusoidal", "learned", "alibi", "relative", "none"]


@st.composite
def mixes(draw: st.DrawFn) -> dict[str, Any]:
    """Entries of an `Architecture`, all valid; heads are 1 to 8 wide, contexts 1 to 12 long."""
    position = draw(st.sampled_from(POSITIONS))
    heads, share = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (4, 4), (4, 2), (6, 3), (8, 4)]))
    step = max(4 // math.gcd(heads, share, 4), 2 if position == "rope" else 1)
    d_head = step * draw(st.integers(1, 8 // step))
    return {
        "d_model": heads * d_head,
        "n_heads": heads,
        "n_kv_heads": share,
        "n_layers": draw(st.integers(1, 2)),
        "context_length": draw(st.integers(1, 12)),
        "activation": draw(
            st.sampled_from(["swiglu", "geglu", "relu", "gelu", "gelu_tanh", "silu"])
        ),
        "d_ff": draw(st.sampled_from([32, 96])),
        "position": position,
        "norm": draw(st.sampled_from(["rmsnorm", "layernorm"])),
        "norm_placement": draw(st.sampled_from(["pre", "post"])),
        "qk_norm": d_head > 1 and draw(st.booleans()),
        "tied_embeddings": draw(st.booleans()),
        "scaled_head": draw(st.booleans()),
        "head_width": draw(st.sampled_from([0, 2 * d_head])),
        "biases": draw(st.sampled_from(["none", "qkv", "all"])),
        "logit_soft_cap": draw(st.sampled_from([0.0, 3.0])),
        "attend_across_documents": draw(st.booleans()),
    }


# Architectures of encoder–decoders.
PAIRED = {
    name: {**mix, "n_encoder_layers": 2, "source_length": 6}
    for name, mix in SINGLE.items()
    if "attend_across_documents" not in mix and mix.get("position") != "none"
}


@st.composite
def paired_mixes(draw: st.DrawFn) -> dict[str, Any]:
    """Entries of an encoder–decoder, all valid."""
    encoder = {
        "n_encoder_layers": draw(st.integers(1, 2)),
        "source_length": draw(st.integers(2, 12)),
        "attend_across_documents": True,
    }
    mix = draw(mixes())
    if mix["position"] == "none":
        mix["position"] = "relative"
    return mix | encoder
