"""Warm starts: trials that start from the weights of another trial instead of random ones.

The specification of such a trial names the weights by content, as a SHA-256; they lie in a folder
as `<sha256>.safetensors`. So a trial stays a pure function of its specification, wherever the
checkpoint came from. Tensors are named by kind: `weights.…`, and with the optimizer's state `m.…`
and `v.…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoints import checkpoint
from model.errors import CheckpointError
from model.spec.architecture import parameter_shapes, trained_shapes
from model.spec.trial import InitFrom, TrialSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WarmStartSource:
    """A checkpoint from which trials may start.

    Attributes:
        spec: specification of the trial of the checkpoint.
        step: updates done.
        val_loss: nats per token on the trial's own validation text.
        tensors: all tensors of the checkpoint, on the CPU.
    """

    spec: TrialSpec
    step: int
    val_loss: float
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> WarmStartSource:
        """Read a checkpoint that the engine wrote.

        Raises:
            CheckpointError: if the file is damaged, or its metadata lack the specification.
        """
        tensors, metadata = checkpoint.read(path)
        try:
            spec = TrialSpec.model_validate(metadata["spec"])
            return cls(spec, int(metadata["step"]), float(metadata["val_loss"]), tensors)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{path} does not contain a trial specification of this version of tuner; choose "
                f"a checkpoint that a search has written"
            ) from error

    def tensors_for(self, *, optimizer_state: bool) -> tuple[InitFrom, dict[str, Tensor]]:
        """Return the tensors from which a trial starts, and their entry in its specification.

        Those of a LoRA trial are its adapters alone, which no trial can start from.

        Args:
            optimizer_state: True to continue with the optimizer's moments. The weights are then
                those that the moments belong to, and the moments' count of updates continues, also
                through several warm starts. Otherwise the weights are those that the trial was
                evaluated with: their running mean if it kept one.

        Raises:
            CheckpointError: if a tensor is missing, or has another shape than the specification.
        """
        kinds = {"weights": "weights", "m": "m", "v": "v"}
        if not optimizer_state:
            is_averaged = any(name.startswith("mean.") for name in self.tensors)
            kinds = {"weights": "mean" if is_averaged else "weights"}
        shapes = trained_shapes(self.spec.architecture)
        tensors = {
            f"{kind}.{name}": self.tensors[f"{source_kind}.{name}"]
            for kind, source_kind in kinds.items()
            for name in shapes
            if f"{source_kind}.{name}" in self.tensors
        }
        for kind in kinds:
            of_kind = {
                name.replace(f"{kind}.", "weights.", 1): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{kind}.")
            }
            if mismatch := first_shape_mismatch(shapes, of_kind):
                name, shape, actual = mismatch
                raise CheckpointError(
                    f"the checkpoint does not fit its specification: {kind} of {name} "
                    f"{shape_text(shape)} by the specification and {shape_text(actual)} in the "
                    f"file; restore the original file"
                )
        before = self.spec.init_from.optimizer_steps if self.spec.init_from else 0
        steps = before + self.step if optimizer_state else 0
        return InitFrom(sha256=checkpoint.digest(tensors), optimizer_steps=steps), tensors


def start_path(folder: Path, init_from: InitFrom) -> Path:
    """Return the path of a start's tensors."""
    return folder / f"{init_from.sha256}.safetensors"


def write_start(folder: Path, init_from: InitFrom, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors of a start to a folder from which engines read."""
    checkpoint.write(start_path(folder, init_from), tensors, {"init_from": init_from.model_dump()})


def read_start(folder: Path, init_from: InitFrom) -> dict[str, Tensor]:
    """Read the tensors of a start.

    Raises:
        CheckpointError: if they are missing or damaged, or do not have the SHA-256.
    """
    path = start_path(folder, init_from)
    tensors, _ = checkpoint.read(path)
    _check_start(path, tensors, init_from)
    return tensors


def _check_start(path: Path, tensors: Mapping[str, Tensor], init_from: InitFrom) -> None:
    sha256 = checkpoint.digest(tensors)
    if sha256 != init_from.sha256:
        raise CheckpointError(
            f"{path} holds other weights than the trial started from (SHA-256 {sha256[:12]}… "
            f"instead of {init_from.sha256[:12]}…); restore the original file"
        )


def map_start(folder: Path | None, spec: TrialSpec) -> dict[str, Tensor]:
    """Return the weights of a start by the names of `parameter_shapes`, mapped from their file.

    Processes that map a file share its pages of memory.

    Args:
        folder: folder of the starts.
        spec: specification with `init_from`.

    Raises:
        CheckpointError: as `initial_state`.
    """
    assert spec.init_from is not None
    path = start_path(_checked(folder), spec.init_from)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error
    _check_start(path, tensors, spec.init_from)
    _check_shapes(spec, tensors)
    return {name.removeprefix("weights."): tensor for name, tensor in tensors.items()}


def initial_state(folder: Path | None, spec: TrialSpec) -> dict[str, Tensor]:
    """Return the tensors that `Stack.load` puts into the slot of a warm-started trial.

    Moments that the start lacks are zero; the running mean of the weights, if the trial keeps one,
    begins at the weights.

    Args:
        folder: folder of the starts.
        spec: specification with `init_from`.

    Raises:
        CheckpointError: as `read_start`, or if there is no folder or a shape does not fit.
    """
    assert spec.init_from is not None
    tensors = read_start(_checked(folder), spec.init_from)
    _check_shapes(spec, tensors)
    for name in parameter_shapes(spec.architecture):
        weights = tensors[f"weights.{name}"]
        for kind in ("m", "v"):
            tensors.setdefault(f"{kind}.{name}", torch.zeros_like(weights))
        tensors[f"mean.{name}"] = weights
    return tensors


def _checked(folder: Path | None) -> Path:
    if folder is None:
        raise CheckpointError(
            "the trial starts from another trial; pass the folder of the starts to the engine"
        )
    return folder


def _check_shapes(spec: TrialSpec, tensors: Mapping[str, Tensor]) -> None:
    mismatch = first_shape_mismatch(parameter_shapes(spec.architecture), tensors)
    if mismatch is not None:
        name, expected, actual = mismatch
        raise CheckpointError(
            f"the start does not fit: {name} {shape_text(actual)} in the start and "
            f"{shape_text(expected)} in the trial"
        )


def shape_text(shape: Shape | None) -> str:
    """Return `has the shape (16, 8)`, or `is missing`."""
    return "is missing" if shape is None else f"has the shape {shape}"


def first_shape_mismatch(
    expected: Mapping[str, Shape], tensors: Mapping[str, Tensor]
) -> tuple[str, Shape | None, Shape | None] | None:
    """Return the first parameter whose shape is not the expected one.

    Returns:
        Its name, its expected shape and that in the tensors (None if missing); None if all
        shapes are equal.
    """
    actual = {
        name.removeprefix("weights."): tuple(tensor.shape)
        for name, tensor in tensors.items()
        if name.startswith("weights.")
    }
    for name in dict.fromkeys([*expected, *actual]):
        if expected.get(name) != actual.get(name):
            return name, expected.get(name), actual.get(name)
    return None
