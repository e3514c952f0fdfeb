"""The Llama architecture: which of our architectures it covers, and its weights.

K is absent: one model. D = width, H = heads, d = width of a head, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from model.spec.architecture import Architecture

if TYPE_CHECKING:
    from torch import Tensor

NORM_EPS = 1e-5  # of `rmsnorm`


def obstacles(a: Architecture, activations: tuple[str, ...]) -> list[str]:
    """Return the entries of an architecture that Llama cannot express, as `entry: value`.

    Args:
        a: an architecture.
        activations: our activations that the target implementation has.
    """
    entries = []
    if a.target is not None:
        entries.append("the multipliers of a proxy")
    if a.n_encoder_layers:
        entries.append(f"n_encoder_layers: {a.n_encoder_layers}")
    if a.activation not in activations:
        entries.append(f"activation: {a.activation}")
    if a.position != "rope":
        entries.append(f"position: {a.position}")
    if a.norm != "rmsnorm":
        entries.append(f"norm: {a.norm}")
    if a.norm_placement != "pre":
        entries.append(f"norm_placement: {a.norm_placement}")
    if a.qk_norm:
        entries.append("qk_norm: true")
    if a.logit_soft_cap:
        entries.append(f"logit_soft_cap: {a.logit_soft_cap:g}")
    if not a.attend_across_documents:
        entries.append("attend_across_documents: false")
    return entries


# our names in a block → names of Hugging Face, names of llama.cpp
_IN_BLOCK: Mapping[str, tuple[str, str]] = {
    "ln1.weight": ("input_layernorm", "attn_norm"),
    "attn.q_proj.weight": ("self_attn.q_proj", "attn_q"),
    "attn.k_proj.weight": ("self_attn.k_proj", "attn_k"),
    "attn.v_proj.weight": ("self_attn.v_proj", "attn_v"),
    "attn.output_proj.weight": ("self_attn.o_proj", "attn_output"),
    "ln2.weight": ("post_attention_layernorm", "ffn_norm"),
    "ffn.w1.weight": ("mlp.gate_proj", "ffn_gate"),
    "ffn.w3.weight": ("mlp.up_proj", "ffn_up"),
    "ffn.w2.weight": ("mlp.down_proj", "ffn_down"),
}


def hugging_face_weights(a: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the names and in the layout of transformers.

    Its rotary embedding rotates the pairs (x[i], x[i + d/2]) of a head, ours the neighbours
    (x[2i], x[2i + 1]): the rows of queries and keys are reordered.
    """
    heads = {"attn.q_proj.weight": a.n_heads, "attn.k_proj.weight": a.n_kv_heads}

    def in_block(name: str, w: Tensor) -> Tensor:
        if name not in heads:
            return w
        return w.view(heads[name], -1, 2, a.d_model).transpose(1, 2).reshape(w.shape)

    return _renamed(
        a,
        weights,
        ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
        lambda i, name: f"model.layers.{i}.{_IN_BLOCK[name][0]}.weight",
        in_block,
    )


def llama_cpp_weights(a: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the names of llama.cpp, which rotates the same pairs as ours.

    Source: its `LLAMA_ROPE_TYPE_NORM`, and `permute` of convert_hf_to_gguf.py, which undoes the
    order of transformers.
    """
    return _renamed(
        a,
        weights,
        ("token_embd.weight", "output_norm.weight", "output.weight"),
        lambda i, name: f"blk.{i}.{_IN_BLOCK[name][1]}.weight",
        lambda name, w: w,
    )


def _renamed(
    a: Architecture,
    weights: Mapping[str, Tensor],
    ends: tuple[str, str, str],
    name_of: Callable[[int, str], str],
    in_block: Callable[[str, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return all weights with other names, each with its own memory.

    A tied head, which divides its input by √D, becomes a separate matrix.
    """
    embedding, norm, head = ends
    table = weights["token_embeddings.weight"]
    renamed = {embedding: table.clone()}
    for i in range(a.n_layers):
        for name in _IN_BLOCK:
            renamed[name_of(i, name)] = in_block(name, weights[f"layers.{i}.{name}"]).clone()
    renamed[norm] = weights["ln_final.weight"].clone()
    head_matrix = weights["lm_head.weight"] if not a.tied_embeddings else table * a.d_model**-0.5
    renamed[head] = head_matrix.clone()
    return {name: w.contiguous() for name, w in renamed.items()}
