"""LoRA: names of the matrices that it adapts, as in Hugging Face's Llama, its scale and its rules.

Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from model.spec.hyperparameters import LORA_ROWS, SYMBOL_TABLE, Hyperparameters

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


def scale_of(rank: int, alpha: float, scaling: str) -> float:
    """Return the factor s of LoRA's change of a matrix; 0 without LoRA."""
    if not rank:
        return 0.0
    return alpha / (rank if scaling == "alpha/rank" else math.sqrt(rank))


def matrices_of(targets: str, *, is_gated: bool) -> Mapping[str, str]:
    """Return the adapted matrices of a block: our name → name of the target.

    Args:
        targets: canonical targets.
        is_gated: True if the feed-forward layer has a gate.
    """
    names = _GROUPS.get(targets) or targets.split(",")
    matrices = _ATTENTION | (_GATED if is_gated else _PLAIN)
    return {ours: name for name, ours in matrices.items() if name in names}


def check_lora(rank: int, h: Hyperparameters, moments: int | None) -> None:
    """Check that LoRA has weights to adapt, and that its rows have an effect.

    Args:
        rank: rank of a trial; 0 without LoRA.
        h: its hyperparameters.
        moments: updates that loaded moments have seen; None if no weights are loaded.

    Raises:
        ValueError: with the first rule that is broken.
    """
    if not rank:
        other = [n for n in LORA_ROWS if getattr(h, n) != SYMBOL_TABLE[n].default]
        if other:
            raise ValueError(f"{other[0]} has no effect without LoRA; give a lora_rank")
        return
    if moments is None:
        raise ValueError("LoRA adapts pretrained weights; give init_from, or leave lora out")
    if moments:
        raise ValueError("LoRA trains none of the loaded weights; leave optimizer_state out")
    if h.target_sparsity:
        raise ValueError("LoRA's B begins at zero and cannot be pruned; leave s_final out")
