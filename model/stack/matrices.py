"""The memory of a stack: all parameters of all slots in one matrix, and their moments alike.

A slot is a row: loading, clearing and saving a trial touches one row, and an update of every
parameter of every trial is a few operations on whole matrices. Named weights are views of it.

K = slots, P = padded parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from model.optimizers.layout import Layout
from model.spec.architecture import Architecture, parameter_shapes

# Every parameter starts at a multiple of 64 floats, so that all rows are aligned alike: kernels
# may round differently at the unaligned edges of an array, and where those lie must not depend
# on the slot.
_ALIGNMENT = 64


class Matrices:
    """K models of one architecture on one device.

    Args:
        architecture: the shape that all slots share.
        width: K.
        device: where the tensors lie.
        compute: the dtype that the model computes in.

    Attributes:
        theta: weights, (K, P) float32, and so are all others unless it is said.
        m: running means of the gradients.
        v: running means of their squares.
        grad: sums of gradients, of ticks since the last update.
        mean: θ̄, from the first slot on that wants one.
        averaged: the slots that want one.
        views: from a matrix (k, P) to named views of it, (k, *shape).
        alive: (K,) bool, False once something was not finite.
        copy: θ in `compute`, (K, P); θ itself if that is float32.
        weights: name → views of it, what the model computes with, (K, *shape).
        grads: views of `grad` in the order of `weights`.
    """

    def __init__(
        self, architecture: Architecture, width: int, device: torch.device, compute: torch.dtype
    ) -> None:
        self.width, self.device = width, device
        self.shapes = parameter_shapes(architecture)
        offsets: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            offsets[name] = end
            end += _ALIGNMENT * math.ceil(math.prod(shape) / _ALIGNMENT)
        self.views = partial(_views, self.shapes, offsets)
        self.layout = Layout.of(self.shapes, offsets, end)
        self.theta, self.m, self.v, self.grad = (
            torch.zeros(width, end, device=device) for _ in range(4)
        )
        self.mean: Tensor | None = None
        self.averaged: set[int] = set()
        self.alive = torch.zeros(width, dtype=torch.bool, device=device)
        self.copy = self.theta if compute == torch.float32 else self.theta.to(compute)
        self.weights = {name: view.requires_grad_() for name, view in self.views(self.copy).items()}
        self.grads = list(self.views(self.grad).values())

    def rows(self, slot: int) -> dict[str, Tensor]:
        """The matrices that hold a slot's state, by kind."""
        rows = {"weights": self.theta, "m": self.m, "v": self.v}
        if slot in self.averaged:
            assert self.mean is not None
            rows["mean"] = self.mean
        return rows

    @torch.no_grad()
    def clear(self, slot: int, *, averaged: bool) -> None:
        """Empty a slot for another trial, whose weights are averaged or not."""
        self.averaged = self.averaged - {slot} | ({slot} if averaged else set())
        if averaged and self.mean is None:
            self.mean = torch.zeros_like(self.theta)
        for matrix in (*self.rows(slot).values(), self.grad):
            matrix[slot] = 0
        self.alive[slot] = True

    @torch.no_grad()
    def refresh(self, slot: int | None = None) -> None:
        """Let the model compute with the weights of a slot, or of all, as they are now."""
        if self.copy is not self.theta:
            own = slice(None) if slot is None else slice(slot, slot + 1)
            self.copy[own].copy_(self.theta[own])

    def evaluated(self, slots: list[int]) -> dict[str, Tensor]:
        """The weights that some slots are evaluated with: their means, where they have them."""
        rows = self.theta
        if slots != list(range(self.width)):
            rows = rows[slots]
        if self.mean is not None and self.averaged.intersection(slots):
            is_averaged = torch.tensor([[slot in self.averaged] for slot in slots])
            rows = torch.where(is_averaged.to(self.device), self.mean[slots], rows)
        return self.views(rows.to(self.copy.dtype))


def _views(
    shapes: Mapping[str, tuple[int, ...]], offsets: Mapping[str, int], flat: Tensor
) -> dict[str, Tensor]:
    return {
        name: flat[:, offsets[name] :][:, : math.prod(shape)].view(-1, *shape)
        for name, shape in shapes.items()
    }
