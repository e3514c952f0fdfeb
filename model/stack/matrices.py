"""Memory of a stack: one matrix for the parameters of all slots, and one for each moment.

A slot is a row: loading, clearing and saving a trial touches one row, and an update of every
parameter of every trial is a few operations on complete matrices. Named weights are views of rows.

K = slots, P = padded parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.device.async_copy import begin_upload
from model.optimizers.layout import UNIT, Layout
from model.spec.architecture import Architecture, trained_shapes
from model.spec.multipliers import multipliers

# Every parameter starts at a multiple of 64 floats, so that all rows have one alignment: kernels
# may round differently at the unaligned edges of an array, and the place of these edges must not
# depend on the slot.
_ALIGNMENT = UNIT


class Matrices:
    """K models of one architecture on one device.

    Args:
        architecture: architecture of all slots.
        width: K.
        device: device of the tensors.
        compute: dtype of the model's computation.

    Attributes:
        theta: weights, (K, P) float32.
        m: running means of the gradients, (K, P) float32.
        v: running means of the squared gradients, (K, P) float32.
        grad: sums of the gradients of the ticks since the last update, (K, P) float32.
        mean: running means of the weights, θ̄, (K, P) float32; None until a slot averages.
        averaged: slots that average their weights.
        views: function from a matrix (k, P) to its named views, (k, *shape).
        alive: (K,) bool, False once a loss or a gradient was not finite.
        copy: θ in `compute`, (K, P); θ itself if `compute` is float32.
        weights: name → view of `copy`, (K, *shape), with which the model computes.
        grads: views of `grad` in the order of `weights`.
        layout: parts of a row, by what optimizers do to them.
        multipliers: name → multipliers of the tensor; empty without a target.
    """

    def __init__(
        self, architecture: Architecture, width: int, device: torch.device, compute: torch.dtype
    ) -> None:
        self.width, self.device = width, device
        self.shapes = trained_shapes(architecture)
        offsets: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            offsets[name] = end
            end += _ALIGNMENT * math.ceil(math.prod(shape) / _ALIGNMENT)
        self.views = partial(_views, self.shapes, offsets)
        self.multipliers = multipliers(architecture)
        self.layout = Layout.of(self.shapes, offsets, end, self.multipliers)
        self.theta, self.m, self.v, self.grad = (
            torch.zeros(width, end, device=device) for _ in range(4)
        )
        self.mean: Tensor | None = None
        self.averaged: set[int] = set()
        self.alive = torch.zeros(width, dtype=torch.bool, device=device)
        self.copy = self.theta if compute == torch.float32 else self.theta.to(compute)
        self.weights = {name: view.requires_grad_() for name, view in self.views(self.copy).items()}
        self.grads = list(self.views(self.grad).values())

    def state_of(self, slot: int) -> dict[str, Tensor]:
        """Return the matrices that belong to a slot's snapshot, by kind."""
        matrices = {"weights": self.theta, "m": self.m, "v": self.v}
        if slot in self.averaged:
            assert self.mean is not None
            matrices["mean"] = self.mean
        return matrices

    @torch.no_grad()
    def clear(self, slot: int, *, averaged: bool) -> None:
        """Clear a slot for another trial; `averaged` says if its weights are averaged."""
        self.averaged = self.averaged - {slot} | ({slot} if averaged else set())
        if averaged and self.mean is None:
            self.mean = torch.zeros_like(self.theta)
        for matrix in (*self.state_of(slot).values(), self.grad):
            matrix[slot] = 0
        self.alive[slot] = True

    @torch.no_grad()
    def refresh(self, slot: int | None = None) -> None:
        """Copy the current weights of a slot, or of all slots, to `copy`."""
        if self.copy is not self.theta:
            rows = slice(None) if slot is None else slice(slot, slot + 1)
            self.copy[rows].copy_(self.theta[rows])

    def evaluated(self, slots: list[int]) -> dict[str, Tensor]:
        """Return the weights for the evaluation of some slots: their means, if they average."""
        rows, means = self.theta, self.mean
        if slots != list(range(self.width)):
            rows, means = rows[slots], None if means is None else means[slots]
        if means is not None and self.averaged.intersection(slots):
            is_averaged = np.array([[slot in self.averaged] for slot in slots])
            rows = torch.where(begin_upload(is_averaged, self.device), means, rows)
        return self.views(rows.to(self.copy.dtype))


def _views(
    shapes: Mapping[str, tuple[int, ...]], offsets: Mapping[str, int], flat: Tensor
) -> dict[str, Tensor]:
    return {
        name: flat[:, offsets[name] :][:, : math.prod(shape)].view(-1, *shape)
        for name, shape in shapes.items()
    }
