"""Export of LoRA's matrices alone to a folder that PEFT loads over the base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from model.exchange.families import Place, family_of
from model.exchange.format import Format, TrainedModel
from model.spec.architecture import Architecture, adapter_shapes
from model.spec.parameter_names import LORA_A, LORA_B
from model.tokenizer.pretokenizer import PATTERNS

if TYPE_CHECKING:  # obstacles are reported without loading torch
    from torch import Tensor

ADAPTER_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


class _Adapter(NamedTuple):
    """One matrix of an adapter.

    Attributes:
        ours: its name in `adapter_shapes`.
        theirs: its name in PEFT.
        matrix: parameter whose rows B has; A has rows of its own.
    """

    ours: str
    theirs: str
    matrix: str


def _adapted(a: Architecture) -> Iterator[Place]:
    """Yield the tensors of the family that LoRA adapts."""
    names = {name.replace(f".{LORA_A}.", ".") for name in adapter_shapes(a)}
    yield from (place for place in family_of(a).places(a) if names.intersection(place.ours))


def _adapters(a: Architecture) -> Iterator[_Adapter]:
    for place in _adapted(a):
        matrix = place.ours[0]
        ours, theirs = (name.removesuffix(".weight") for name in (matrix, place.theirs))
        for side in (LORA_A, LORA_B):
            yield _Adapter(
                f"{ours}.{side}.weight", f"{_PREFIX}{theirs}.{side}.weight",
                matrix if side == LORA_B else f"{ours}.{side}.weight",
            )  # fmt: skip


def obstacles(a: Architecture) -> list[str]:
    """Return what an adapter of PEFT cannot express, each as `entry: value`."""
    if not a.lora_rank:
        return ["lora: off"]
    # GPT-2 joins queries, keys and values, where PEFT has one A for all of them
    joined = any(len(place.ours) > 1 or place.is_transposed for place in _adapted(a))
    family = family_of(a)
    return family.obstacles(a) + ([f"family: {family.model_type}"] if joined else [])


def export_adapters(a: Architecture, adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters with the names and in the layout of PEFT.

    Args:
        a: architecture without `obstacles`.
        adapters: by the names of `adapter_shapes`.
    """
    rows = family_of(a).rows
    return {
        theirs: rows(a, matrix, adapters[ours]).contiguous()
        for ours, theirs, matrix in _adapters(a)
    }


def load_adapters(a: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our adapters from those of PEFT; the inverse of `export_adapters`."""
    rows = family_of(a).own_rows
    loaded = {
        ours: rows(a, matrix, tensors[theirs]).contiguous() for ours, theirs, matrix in _adapters(a)
    }
    return {name: loaded[name] for name in adapter_shapes(a)}


def _write(model: TrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    a, h = model.architecture, model.spec.hyperparameters
    assert model.adapters is not None
    save_file(export_adapters(a, model.adapters), folder / ADAPTER_FILE, {"format": "pt"})
    targets = dict.fromkeys(place.theirs.split(".")[-2] for place in _adapted(a))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
        "r": a.lora_rank, "lora_alpha": h.lora_alpha, "lora_dropout": h.lora_dropout,
        "use_rslora": h.lora_scaling != "alpha/rank", "target_modules": [*targets],
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    }  # fmt: skip
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    model.tokenizer.save(folder, "huggingface")


def _usage(model: TrainedModel) -> str:
    start = model.spec.init_from
    return f"""\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("FOLDER_OF_THE_BASE")
model = PeftModel.from_pretrained(base, ".")
```

The folder holds LoRA's matrices only, of rank {model.architecture.lora_rank}. They belong to the \
weights that the search started from (SHA-256 `{start.sha256 if start else ""}`).

"""


PEFT = Format(
    what="LoRA's matrices for PEFT",
    obstacles=obstacles,
    patterns=tuple(PATTERNS),
    needs=None,
    write=_write,
    usage=_usage,
    front="---\nlibrary_name: peft\npipeline_tag: text-generation\n---\n\n",
)
