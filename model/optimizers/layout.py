"""Layout of a model's row of P numbers: its tensors, grouped by how optimizers treat them.

K = slots in a stack, P = padded parameters of one model, N = tensors of one model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from model.spec.multipliers import PLAIN, Multipliers
from model.spec.parameter_names import LORA_B, is_decayed

Parts = tuple[slice, ...]
MATRIX, EMBEDDING, GAIN, LORA_MATRIX_B = range(4)  # kinds of a `Group`
UNIT = (
    64  # `Matrices` aligns each tensor to 64: 64 parameters have one decay, and one of each factor
)


class Hidden(NamedTuple):
    """Matrices inside the blocks that Muon orthogonalizes together.

    Attributes:
        shape: their shape.
        offsets: their offsets in the row.
        factor: factor of Muon's step, of `Multipliers`.
    """

    shape: tuple[int, int]
    offsets: tuple[int, ...]
    factor: float = 1.0


class Group(NamedTuple):
    """Tensors with one weight decay and equal multipliers.

    Attributes:
        kind: MATRIX, EMBEDDING, GAIN (also of biases) or LORA_MATRIX_B.
        multipliers: their multipliers.
        members: indices into `Layout.tensors`.
    """

    kind: int
    multipliers: Multipliers
    members: tuple[int, ...]


class UnitFactors(NamedTuple):
    """Factors of each unit of 64 parameters, (P / 64,) float32 each.

    Attributes:
        rate: factors of α.
        decay: factors of λ.
        eps: factors of ε.
    """

    rate: Tensor
    decay: Tensor
    eps: Tensor


@dataclass(frozen=True)
class Layout:
    """Parts of the last dimension of θ.

    Attributes:
        matrices: parts that λ decays.
        embeddings: parts that λ_emb decays.
        gains: parts that λ_gain decays.
        tensors: each parameter with its padding; together they are the complete row.
        weights: each matrix without its padding.
        hidden: the matrices inside the blocks, which Muon orthogonalizes.
        multipliers: multipliers of each tensor; empty without a target.
        lora_b: LoRA's matrices B, which may have a rate of their own; they count as matrices, too.
    """

    matrices: Parts = (slice(None),)
    embeddings: Parts = ()
    gains: Parts = ()
    tensors: Parts = (slice(None),)
    weights: Parts = ()
    hidden: tuple[Hidden, ...] = ()
    multipliers: tuple[Multipliers, ...] = ()
    lora_b: Parts = ()
    _factors: dict[torch.device, UnitFactors] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        offsets: Mapping[str, int],
        end: int,
        multipliers: Mapping[str, Multipliers] | None = None,
    ) -> Layout:
        """Return the layout of named parameters that follow one another.

        Args:
            shapes: name → shape, in the order of the row.
            offsets: name → offset in the row.
            end: P.
            multipliers: name → multipliers; None or empty without a target.
        """
        multipliers = multipliers or {}
        tensors = tuple(map(slice, offsets.values(), [*list(offsets.values())[1:], end]))
        parts: dict[str, list[slice]] = {"matrices": [], "embeddings": [], "gains": []}
        hidden: dict[tuple[tuple[int, int], float], list[int]] = {}
        weights: list[slice] = []
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            part = parts[_part(name, shape)]
            part.append(tensor)
            if part is not parts["matrices"]:
                continue
            weights.append(slice(tensor.start, tensor.start + math.prod(shape)))
            if len(shape) == 2 and "layers." in name:
                factor = multipliers.get(name, PLAIN).muon
                hidden.setdefault(((shape[0], shape[1]), factor), []).append(tensor.start)
        return cls(
            _joined(parts["matrices"]),
            _joined(parts["embeddings"]),
            _joined(parts["gains"]),
            tensors=tensors,
            weights=tuple(weights),
            hidden=tuple(
                Hidden(shape, tuple(starts), factor) for (shape, factor), starts in hidden.items()
            ),
            multipliers=tuple(multipliers.values()),
            lora_b=_joined(
                tensor
                for name, tensor in zip(shapes, tensors, strict=True)
                if f".{LORA_B}." in name
            ),
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

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The tensors by kind and multipliers."""
        groups: dict[tuple[int, Multipliers], list[int]] = {}
        for kind, members in enumerate(self.members):
            for index in members:
                each = self.multipliers[index] if self.multipliers else PLAIN
                is_b = any(_within(self.tensors[index], part) for part in self.lora_b)
                groups.setdefault((LORA_MATRIX_B if is_b else kind, each), []).append(index)
        return tuple(Group(*key, tuple(members)) for key, members in groups.items())

    def factors(self, device: torch.device) -> UnitFactors | None:
        """Return the factors of each unit on a device; None without a target.

        They stay on the device: a CUDA graph refers to their memory.
        """
        if not self.multipliers:
            return None
        if device not in self._factors:
            units = [(part.stop - part.start) // UNIT for part in self.tensors]
            columns = zip(*((m.rate, m.decay, m.eps) for m in self.multipliers), strict=True)
            self._factors[device] = UnitFactors(
                *(
                    torch.tensor(c).repeat_interleave(torch.tensor(units)).to(device)
                    for c in columns
                )
            )
        return self._factors[device]

    def norms(self, x: Tensor) -> Tensor:
        """Return the Euclidean norm of each tensor of each slot: (K, P) → (K, N)."""
        squares = x * x  # the padding is zero
        return torch.stack([squares[..., t].sum(-1) for t in self.tensors], -1).sqrt()

    def scale_(self, x: Tensor, factor: Tensor) -> Tensor:
        """Multiply each tensor of each slot, (K, P), by its factor, (K, N), in place."""
        for index, tensor in enumerate(self.tensors):
            x[..., tensor] *= factor[..., index, None]
        return x


def _joined(tensors: Iterable[slice]) -> Parts:
    """Return one slice for neighbours: fewer operations."""
    joined: list[slice] = []
    for tensor in tensors:
        if joined and joined[-1].stop == tensor.start:
            joined[-1] = slice(joined[-1].start, tensor.stop)
        else:
            joined.append(tensor)
    return tuple(joined)


def _within(tensor: slice, part: slice) -> bool:
    if part.start is None:
        return True
    return bool(part.start <= (tensor.start or 0) < part.stop)


def _part(name: str, shape: tuple[int, ...]) -> str:
    if is_decayed(name):
        return "matrices"
    return "gains" if len(shape) == 1 else "embeddings"
