"""Warm starts: a trial that begins with what another one learned, instead of random weights.

What it begins with is part of its specification by content, as a SHA-256, and lies in a folder as
`<sha256>.safetensors`: wherever the checkpoint came from, a trial stays a pure function of its
specification. Names begin with the kind: `weights.…`, and with the optimizer's state `m.…`, `v.…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints import checkpoint
from model.errors import CheckpointError
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.trial import InitFrom, TrialSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WarmStartSource:
    """A checkpoint that trials may start from.

    Attributes:
        spec: of the trial that it is of.
        step: updates done.
        val_loss: nats per token on the trial's own validation text.
        tensors: all that the engine saved, on the CPU.
    """

    spec: TrialSpec
    step: int
    val_loss: float
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> WarmStartSource:
        """Read a checkpoint that the engine wrote.

        Raises:
            CheckpointError: if it is damaged, or does not say what was trained.
        """
        tensors, about = checkpoint.read(path)
        try:
            spec = TrialSpec.model_validate(about["spec"])
            return cls(spec, about["step"], about["val_loss"], tensors)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not say what was trained as this version of tuner does; take a "
                f"checkpoint that a search has written"
            ) from error

    def take(self, *, optimizer_state: bool) -> tuple[InitFrom, dict[str, Tensor]]:
        """What a trial begins with: its place in the specification, and the tensors.

        Without the optimizer's state these are the weights that this trial was evaluated with,
        their running mean if it kept one. With it, they are the weights that the moments belong
        to, and the moments' count of updates goes on, through several warm starts as well.
        """
        kinds = {"weights": "weights", "m": "m", "v": "v"}
        if not optimizer_state:
            is_averaged = any(name.startswith("mean.") for name in self.tensors)
            kinds = {"weights": "mean" if is_averaged else "weights"}
        taken = {
            f"{kind}.{name}": self.tensors[f"{origin}.{name}"]
            for kind, origin in kinds.items()
            for name in parameter_shapes(self.spec.architecture)
        }
        before = self.spec.init_from.optimizer_steps if self.spec.init_from else 0
        steps = before + self.step if optimizer_state else 0
        return InitFrom(sha256=checkpoint.digest(taken), optimizer_steps=steps), taken


def start_path(folder: Path, init_from: InitFrom) -> Path:
    """Where the tensors of a start lie."""
    return folder / f"{init_from.sha256}.safetensors"


def write_start(folder: Path, init_from: InitFrom, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of a start into a folder, for engines to read."""
    checkpoint.write(start_path(folder, init_from), tensors, {"init_from": init_from.model_dump()})


def read(folder: Path, init_from: InitFrom) -> dict[str, Tensor]:
    """The tensors of a start.

    Raises:
        CheckpointError: if they are missing or damaged, or are not those that the SHA-256 is of.
    """
    path = start_path(folder, init_from)
    tensors, _ = checkpoint.read(path)
    found = checkpoint.digest(tensors)
    if found != init_from.sha256:
        raise CheckpointError(
            f"{path} holds other weights than the trial started from (SHA-256 {found[:12]}… "
            f"instead of {init_from.sha256[:12]}…); bring the file back"
        )
    return tensors


def first_state(folder: Path | None, spec: TrialSpec) -> dict[str, Tensor]:
    """What `Stack.load` puts into the slot of a warm-started trial, at step 0.

    The weights are the start's; moments that it does not hold are zero; the running mean of the
    weights, if the trial keeps one, begins at the weights.

    Raises:
        CheckpointError: as `read`, or if there is no folder or a shape does not fit.
    """
    assert spec.init_from is not None
    if folder is None:
        raise CheckpointError("the trial starts from another; tell the engine where starts lie")
    tensors = read(folder, spec.init_from)
    misfit = first_shape_mismatch(spec.architecture, tensors)
    if misfit is not None:
        name, here, there = misfit
        raise CheckpointError(
            f"the start does not fit: {name} {shape_text(there)} there and {shape_text(here)} here"
        )
    for name in parameter_shapes(spec.architecture):
        weights = tensors[f"weights.{name}"]
        for kind in ("m", "v"):
            tensors.setdefault(f"{kind}.{name}", torch.zeros_like(weights))
        tensors[f"mean.{name}"] = weights
    return tensors


def shape_text(shape: Shape | None) -> str:
    """`has the shape (16, 8)`, or `is missing`."""
    return "is missing" if shape is None else f"has the shape {shape}"


def first_shape_mismatch(
    architecture: Architecture, tensors: Mapping[str, Tensor]
) -> tuple[str, Shape | None, Shape | None] | None:
    """The first parameter whose shape is not that of a start's weights; None if all are.

    Returns:
        Its name, its shape in the architecture and in the start; None for one that is not there.
    """
    here = parameter_shapes(architecture)
    there = {
        name.removeprefix("weights."): tuple(tensor.shape)
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    for name in dict.fromkeys([*here, *there]):
        if here.get(name) != there.get(name):
            return name, here.get(name), there.get(name)
    return None
