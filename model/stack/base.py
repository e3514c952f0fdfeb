"""Frozen weights that the LoRA trials of a device adapt: one copy, whatever the number of slots.

On a CPU they are the mapped file of the start, whose pages all workers of a machine share. Only
matrices that are multiplied in another dtype are copies of the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from model.checkpoints.warm_start import map_start
from model.device.precision import Precision, exact_device
from model.network.head import Head
from model.network.transformer import initial_weight
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.multipliers import initial_std
from model.spec.parameter_names import is_decayed
from model.spec.trial import TrialSpec


@dataclass(frozen=True, eq=False)
class Base:
    """Weights without gradients.

    Attributes:
        weights: by the names of `parameter_shapes`, (1, …) each, on the device.
        sha256: digest of the tensors that they come from.
    """

    weights: dict[str, Tensor] = field(repr=False)
    sha256: str = ""

    @cached_property
    def squares(self) -> dict[str, Tensor]:
        """Squared norm of each matrix of the blocks, float64, where such numbers are computed."""
        matrices = (
            name for name in self.weights if name.startswith("layers.") and is_decayed(name)
        )
        exact = {
            name: self.weights[name].to(exact_device(self.weights[name].device))
            for name in matrices
        }
        return {name: w.double().square().sum() for name, w in exact.items()}

    @classmethod
    def load(
        cls, folder: Path | None, spec: TrialSpec, device: torch.device, precision: Precision
    ) -> Self:
        """Map the weights that a trial starts from.

        Args:
            folder: folder of the starts.
            spec: specification with `init_from`.
            device: device of the stacks.
            precision: precision of the computation.

        Raises:
            CheckpointError: if the tensors are missing, damaged, or of another shape.
        """
        assert spec.init_from is not None
        tensors = map_start(folder, spec)
        return cls(_on_device(tensors, spec.architecture, device, precision), spec.init_from.sha256)

    @classmethod
    def random(cls, a: Architecture, device: torch.device, precision: Precision) -> Self | None:
        """Return random weights, to measure how long a tick takes; None without LoRA."""
        if not a.lora_rank:
            return None
        tensors = {
            name: initial_weight(0, name, shape, std=initial_std(a, name))
            for name, shape in parameter_shapes(a).items()
        }
        return cls(_on_device(tensors, a, device, precision))


def _on_device(
    tensors: dict[str, Tensor], a: Architecture, device: torch.device, precision: Precision
) -> dict[str, Tensor]:
    """Return tensors with a leading 1, in the dtype in which each is used; a copy if that differs.

    A tied head is the table of the embeddings, which stay as they are.
    """
    table = Head.of(a).table
    converted = {
        name: precision.products
        for name in tensors
        if precision.products and is_decayed(name) and (name != table or not a.tied_embeddings)
    }
    return {
        name: tensor.to(device, converted.get(name, precision.compute)).unsqueeze(0)
        for name, tensor in tensors.items()
    }


class Bases:
    """The frozen weights of a device: those of the last LoRA trial, since a search has one start.

    Args:
        folder: folder of the starts.
        device: device of the stacks.
        precision: precision of the computation.
    """

    def __init__(self, folder: Path | None, device: torch.device, precision: Precision) -> None:
        self._where = folder, device, precision
        self._last: Base | None = None

    def of(self, spec: TrialSpec) -> Base | None:
        """Return the weights that a trial adapts; None without LoRA. Raises as `Base.load`."""
        if not spec.architecture.lora_rank:
            return None
        assert spec.init_from is not None
        if self._last is None or self._last.sha256 != spec.init_from.sha256:
            folder, device, precision = self._where
            self._last = Base.load(folder, spec, device, precision)
        return self._last
