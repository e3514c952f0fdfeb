"""What the names of parameters say."""

from __future__ import annotations

LORA_A, LORA_B = "lora_A", "lora_B"  # names of LoRA's matrices, as in PEFT
_MATRICES = {"w1", "w2", "w3", "lm_head", LORA_A, LORA_B}


def reads_source(name: str) -> bool:
    """Return True if a matrix is multiplied with the tokens of the source."""
    return name.startswith("encoder.") or ".cross.k_proj." in name or ".cross.v_proj." in name


def is_decayed(name: str) -> bool:
    """Return True if λ decays a parameter: the matrices, not embeddings, gains and biases."""
    *_, layer, kind = name.split(".")
    return kind == "weight" and (layer.endswith("_proj") or layer in _MATRICES)
