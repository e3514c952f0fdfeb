"""Checkpoints of any torch module and its optimizer: `save_checkpoint` and `load_checkpoint`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from model.checkpoints.checkpoint import pack, read, unpack, write
from model.errors import CheckpointError


def save_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    iteration: int,
    out: str | os.PathLike[str] | IO[bytes],
) -> None:
    """Save a module, its optimizer and the iteration.

    Args:
        model: module to save.
        optimizer: torch optimizer; its per-parameter state and its groups are saved.
        iteration: updates done.
        out: path (written atomically) or an open binary file.
    """
    # clones, because safetensors refuses tensors that share memory, such as tied weights
    tensors = {f"model.{n}": t.detach().cpu().clone() for n, t in model.state_dict().items()}
    state = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}  # entries that are no tensors
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu()
            else:
                numbers.setdefault(str(index), {})[key] = value
    groups, group_tensors = _split_groups(state["param_groups"])
    tensors |= group_tensors
    metadata = {"iteration": iteration, "optimizer": numbers, "param_groups": groups}
    if isinstance(out, str | os.PathLike):
        write(Path(out), tensors, metadata)
    else:
        out.write(pack(tensors, metadata))


def load_checkpoint(
    src: str | os.PathLike[str] | IO[bytes], model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Load a checkpoint of `save_checkpoint` into a module and an optimizer of equal shape.

    Args:
        src: path or an open binary file.
        model: module to load into.
        optimizer: optimizer to load into.

    Returns:
        Iteration of the checkpoint.

    Raises:
        CheckpointError: if the file is damaged or does not fit the module.
    """
    if isinstance(src, str | os.PathLike):
        tensors, metadata = read(Path(src))
    else:
        tensors, metadata = unpack(src.read(), str(getattr(src, "name", "the checkpoint")))
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {error}") from error
    state: dict[int, dict[str, Any]] = {int(i): dict(e) for i, e in metadata["optimizer"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = _join_groups(metadata["param_groups"], tensors)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(metadata["iteration"])


def _split_groups(groups: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Split parameter groups into JSON and tensors.

    Hyperparameters per slot are tensors, which JSON cannot hold; `{"tensor": name}` replaces them.
    """
    tensors: dict[str, Tensor] = {}

    def as_json(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().clone()  # groups may share a tensor
            return {"tensor": name}
        if isinstance(value, tuple):
            return {"tuple": [as_json(item, f"{name}.{i}") for i, item in enumerate(value)]}
        return value

    return [
        {key: as_json(value, f"group.{number}.{key}") for key, value in group.items()}
        for number, group in enumerate(groups)
    ], tensors


def _join_groups(groups: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> list[Any]:
    """Return the parameter groups that `_split_groups` split."""

    def from_json(value: Any) -> Any:
        if isinstance(value, dict) and "tensor" in value:
            return tensors[value["tensor"]]
        if isinstance(value, dict) and "tuple" in value:
            return tuple(from_json(item) for item in value["tuple"])
        return value

    return [{key: from_json(value) for key, value in group.items()} for group in groups]
