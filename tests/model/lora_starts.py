"""Random weights as the start of LoRA trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.checkpoints import checkpoint
from model.checkpoints.warm_start import write_start
from model.network.transformer import initial_weight
from model.spec.architecture import parameter_shapes
from model.spec.trial import InitFrom, TrialSpec
from tests.conftest import MakeSpec


def started(
    make_spec: MakeSpec, folder: Path, model: dict[str, Any] | None = None, seed: int = 77
) -> InitFrom:
    """Write random weights of an architecture to a folder of starts; return their entry."""
    a = make_spec(model=model).architecture
    tensors = {
        f"weights.{name}": initial_weight(seed, name, shape)
        for name, shape in parameter_shapes(a).items()
    }
    init_from = InitFrom(sha256=checkpoint.digest(tensors))
    write_start(folder, init_from, tensors)
    return init_from


def lora_spec(
    make_spec: MakeSpec,
    start: InitFrom,
    model: dict[str, Any] | None = None,
    rank: int = 4,
    targets: str = "all",
    **rows: Any,
) -> TrialSpec:
    """A LoRA trial that starts from the weights of `started`, with a high rate."""
    entries = {**(model or {}), "lora_rank": rank, "lora_targets": targets}
    return make_spec(model=entries, init_from=start, **{"max_learning_rate": 0.05, **rows})
