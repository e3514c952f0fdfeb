"""Matrices that LoRA adapts, by the names of Hugging Face's Llama; `Architecture` has the shapes.

Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping

LARGEST_RANK = 1_024
LORA_ENTRIES = ("lora_rank", "lora_targets")  # of `Architecture`
DEFAULT_RANK = 8  # of a space with `lora:`

# name of a target → our name of the matrix in a block; a feed-forward layer without a gate has its
# first matrix under the name of the one that the gate multiplies
_ATTENTION = {
    "q_proj": "attn.q_proj", "k_proj": "attn.k_proj", "v_proj": "attn.v_proj",
    "o_proj": "attn.output_proj",
}  # fmt: skip
_GATED = {"gate_proj": "ffn.w1", "up_proj": "ffn.w3", "down_proj": "ffn.w2"}
_PLAIN = {"up_proj": "ffn.w1", "down_proj": "ffn.w2"}
_GROUPS = {
    "all": (*_ATTENTION, *_GATED), "attention": tuple(_ATTENTION), "mlp": tuple(_GATED),
}  # fmt: skip


def canonical_targets(text: str) -> str:
    """Return the one spelling of a set of targets: a group, or names in the order of a block.

    Args:
        text: `all`, `attention`, `mlp`, or names with commas: `q_proj,v_proj`.

    Raises:
        ValueError: if a name is unknown or given twice.
    """
    if text in _GROUPS:
        return text
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in _GROUPS["all"] or names.count(name) > 1]
    if wrong:
        raise ValueError(
            f"lora_targets must be {', '.join(_GROUPS)}, or different ones of "
            f"{', '.join(_GROUPS['all'])}; got {wrong[0] or 'an empty name'!r}"
        )
    ordered = tuple(name for name in _GROUPS["all"] if name in names)
    return next((group for group, all_of in _GROUPS.items() if all_of == ordered), None) or (
        ",".join(ordered)
    )


def matrices_of(targets: str, *, is_gated: bool) -> Mapping[str, str]:
    """Return the adapted matrices of a block: our name → name of the target.

    Args:
        targets: canonical targets.
        is_gated: True if the feed-forward layer has a gate.
    """
    names = _GROUPS.get(targets) or targets.split(",")
    matrices = _ATTENTION | (_GATED if is_gated else _PLAIN)
    return {ours: name for name, ours in matrices.items() if name in names}
