"""Export of LoRA's matrices alone to a folder that PEFT loads over the base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from model.exchange.families import Place, family_of
from model.exchange.format import Format, TrainedModel
from model.spec.architecture import Architecture, adapter_shapes, parameter_shapes
from model.spec.parameter_names import LORA_A, LORA_B
from model.tokenizer.library import LIBRARY
from model.tokenizer.pretokenizer import PATTERNS

if TYPE_CHECKING:  # obstacles are reported without loading torch
    from torch import Tensor

ADAPTER_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


class _Part(NamedTuple):
    """A matrix of ours in a tensor of PEFT.

    Attributes:
        ours: its name in `adapter_shapes`.
        theirs: name of the tensor.
        matrix: parameter whose rows B has; A has rows of its own.
        place: rows and columns that it takes; the rest is zero.
        shape: shape of the tensor.
    """

    ours: str
    theirs: str
    matrix: str
    place: tuple[slice, slice]
    shape: tuple[int, int]


def _adapted(a: Architecture) -> Iterator[tuple[Place, list[str]]]:
    """Yield the tensors of the family that LoRA adapts, and the adapted parameters of each."""
    names = {name.replace(f".{LORA_A}.", ".") for name in adapter_shapes(a)}
    for place in family_of(a).places(a):
        if adapted := [name for name in place.ours if name in names]:
            yield place, adapted


def _parts(a: Architecture) -> Iterator[_Part]:
    """Yield all matrices.

    GPT-2 joins queries, keys and values, and PEFT has one A and one B for all of them: A's are
    joined along the rank, and each B has its own rows and its own part of the rank.
    """
    shapes, r = parameter_shapes(a), a.lora_rank
    for place, adapted in _adapted(a):
        theirs = f"{_PREFIX}{place.theirs.removesuffix('.weight')}"
        rank, inputs = r * len(adapted), shapes[adapted[0]][1]
        ends = dict(zip(place.ours, accumulate(shapes[n][0] for n in place.ours), strict=True))
        outputs = max(ends.values())
        for number, matrix in enumerate(adapted):
            ours, own = matrix.removesuffix(".weight"), slice(number * r, (number + 1) * r)
            name = f"{ours}.{LORA_A}.weight"
            yield _Part(name, f"{theirs}.{LORA_A}.weight", name, (own, slice(None)), (rank, inputs))
            rows = slice(ends[matrix] - shapes[matrix][0], ends[matrix])
            yield _Part(
                f"{ours}.{LORA_B}.weight", f"{theirs}.{LORA_B}.weight", matrix, (rows, own),
                (outputs, rank),
            )  # fmt: skip


def obstacles(a: Architecture) -> list[str]:
    """Return what an adapter of PEFT cannot express, each as `entry: value`."""
    return family_of(a).obstacles(a) if a.lora_rank else ["lora: off"]


def export_adapters(a: Architecture, adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters with the names and in the layout of PEFT.

    Args:
        a: architecture without `obstacles`.
        adapters: by the names of `adapter_shapes`.
    """
    family = family_of(a)
    exported: dict[str, Tensor] = {}
    for part in _parts(a):
        w = family.rows(a, part.matrix, adapters[part.ours])
        tensor = exported.setdefault(part.theirs, w.new_zeros(part.shape))
        tensor[part.place] = w
    return exported


def load_adapters(a: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our adapters from those of PEFT; the inverse of `export_adapters`."""
    family = family_of(a)
    loaded = {
        part.ours: family.own_rows(a, part.matrix, tensors[part.theirs][part.place]).contiguous()
        for part in _parts(a)
    }
    return {name: loaded[name] for name in adapter_shapes(a)}


def _modules(a: Architecture) -> dict[str, int]:
    """Return the names of the modules that PEFT shall adapt → how many matrices each joins.

    The end of a name, as `q_proj`, unless another module ends so: `attn.c_proj` of GPT-2.
    """
    adapted = {place.theirs.rpartition(".")[0]: len(names) for place, names in _adapted(a)}
    every = {place.theirs.rpartition(".")[0] for place in family_of(a).places(a)}
    others = {module.rpartition(".")[2] for module in every - adapted.keys()}
    found = {}
    for module, count in adapted.items():
        *_, before, name = module.split(".")
        found[f"{before}.{name}" if name in others else name] = count
    return found


def _write(model: TrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    a, h = model.architecture, model.spec.hyperparameters
    assert model.adapters is not None
    save_file(export_adapters(a, model.adapters), folder / ADAPTER_FILE, {"format": "pt"})
    modules = _modules(a)
    is_plain = h.lora_scaling == "alpha/rank"
    joined = {name: count for name, count in modules.items() if count > 1}
    # of a larger rank, with the same scale
    alphas = {n: h.lora_alpha * (count if is_plain else count**0.5) for n, count in joined.items()}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
        "r": a.lora_rank, "lora_alpha": h.lora_alpha, "lora_dropout": h.lora_dropout,
        "use_rslora": not is_plain, "target_modules": [*modules],
        "rank_pattern": {name: count * a.lora_rank for name, count in joined.items()},
        "alpha_pattern": alphas, "bias": "none",
        "fan_in_fan_out": any(place.is_transposed for place, _ in _adapted(a)),
        "inference_mode": True,
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
    patterns=(*PATTERNS, LIBRARY),
    needs=None,
    write=_write,
    usage=_usage,
    front="---\nlibrary_name: peft\npipeline_tag: text-generation\n---\n\n",
)
