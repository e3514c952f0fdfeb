"""Layout of a model's row of P numbers: its tensors, grouped by how optimizers treat them.

K = slots in a stack, P = padded parameters of one model, N = tensors of one model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model.spec.architecture import is_decayed

Parts = tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """Parts of the last dimension of θ.

    Attributes:
        matrices: parts that λ decays.
        embeddings: parts that λ_emb decays.
        gains: parts that λ_gain decays.
        tensors: each parameter with its padding; together they are the complete row.
        weights: each matrix without its padding.
        hidden: shape → offsets of the matrices inside the blocks, which Muon orthogonalizes.
    """

    matrices: Parts = (slice(None),)
    embeddings: Parts = ()
    gains: Parts = ()
    tensors: Parts = (slice(None),)
    weights: Parts = ()
    hidden: tuple[tuple[tuple[int, int], tuple[int, ...]], ...] = ()

    @classmethod
    def of(
        cls, shapes: Mapping[str, tuple[int, ...]], offsets: Mapping[str, int], end: int
    ) -> Layout:
        """Return the layout of named parameters that follow one another.

        Args:
            shapes: name → shape, in the order of the row.
            offsets: name → offset in the row.
            end: P.
        """
        tensors = tuple(map(slice, offsets.values(), [*list(offsets.values())[1:], end]))
        parts: dict[str, list[slice]] = {"matrices": [], "embeddings": [], "gains": []}
        hidden: dict[tuple[int, int], list[int]] = {}
        weights: list[slice] = []
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            part = parts[_part(name, shape)]
            if part and part[-1].stop == tensor.start:  # one slice for neighbours: fewer operations
                part[-1] = slice(part[-1].start, tensor.stop)
            else:
                part.append(tensor)
            if part is not parts["matrices"]:
                continue
            weights.append(slice(tensor.start, tensor.start + math.prod(shape)))
            if len(shape) == 2 and "layers." in name:
                hidden.setdefault((shape[0], shape[1]), []).append(tensor.start)
        return cls(
            **{name: tuple(part) for name, part in parts.items()},
            tensors=tensors,
            weights=tuple(weights),
            hidden=tuple((shape, tuple(starts)) for shape, starts in hidden.items()),
        )

    @cached_property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Indices into `tensors` of the matrices, of the embeddings, and of the gains."""
        kinds = (self.matrices, self.embeddings, self.gains)
        return tuple(
            tuple(
                index
                for index, tensor in enumerate(self.tensors)
                if any(_within(tensor, part) for part in parts)
            )
            for parts in kinds
        )

    def norms(self, x: Tensor) -> Tensor:
        """Return the Euclidean norm of each tensor of each slot: (K, P) → (K, N)."""
        squares = x * x  # the padding is zero
        return torch.stack([squares[..., t].sum(-1) for t in self.tensors], -1).sqrt()

    def scale_(self, x: Tensor, factor: Tensor) -> Tensor:
        """Multiply each tensor of each slot, (K, P), by its factor, (K, N), in place."""
        for index, tensor in enumerate(self.tensors):
            x[..., tensor] *= factor[..., index, None]
        return x


def _within(tensor: slice, part: slice) -> bool:
    if part.start is None:
        return True
    return bool(part.start <= (tensor.start or 0) < part.stop)


def _part(name: str, shape: tuple[int, ...]) -> str:
    if is_decayed(name):
        return "matrices"
    return "gains" if len(shape) == 1 else "embeddings"
