"""What a stack does in one quantum: planned on the host, and brought to the device at once.

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens,
S = tokens of a source, C = entries of `optimizers.Coefficients`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.corpus.dataset import Batch, Ints
from model.network.dropout import PLACES
from model.optimizers.update_rule import Coefficients

Floats = npt.NDArray[np.float64]

# The columns of what is uploaded, before the coefficients and the numbers of the sequences.
_FLOATS = ("weight", "max_norm", "max_value", "averaging", "z_loss", "label_smoothing", *PLACES)
_INTS = ("due", "dropout_keys")


class Uses(NamedTuple):
    """What some slot of a quantum asks for; the rest is skipped, which changes no bits.

    Attributes:
        given: whether token ids come from the host.
        z_loss: whether a slot has it, and so on.
        label_smoothing: likewise.
        max_value: likewise.
        averaging: likewise.
        embedding_dropout: likewise.
        attention_dropout: the slots that drop attention probabilities.
        residual_dropout: whether a slot drops what the branches add.
        columns: of the coefficients, which are not zero for all slots.
        adaptive: whether all slots divide by √v̂.
    """

    given: bool
    z_loss: bool
    label_smoothing: bool
    max_value: bool
    averaging: bool
    embedding_dropout: bool
    attention_dropout: tuple[int, ...]
    residual_dropout: bool
    columns: tuple[bool, ...]
    adaptive: bool


@dataclass(frozen=True)
class Plan:
    """What a stack does in one quantum.

    Attributes:
        numbers: (Q, K, b) int64, the training sequences to read.
        given: their ids, (Q, K, b, T) and (Q, K, b, S), if the host has read them.
        weight: (Q, K) share of a tick in the targets of its update; 0 for a slot that rests.
        due: (Q, K) bool, whether the slot's update happens after this tick.
        coefficients: (Q, K, C), a row of `optimizers.Coefficients` where due.
        max_norm: (Q, K) τ where due, otherwise infinity.
        max_value: (Q, K) τ_value where due, otherwise infinity.
        averaging: (Q, K) share of the new weights in their mean where due, otherwise 0.
        pruning: (Q, K) see `pruning_of`, OFF where not due.
        z_loss: (K,), 0 for a slot without.
        label_smoothing: (K,), 0 for a slot without.
        dropout: (3, K), a row for each of `dropout.PLACES`; 0 for a slot without.
        dropout_keys: (Q, K) int64.
    """

    numbers: Ints
    given: Batch | None
    weight: Floats
    due: npt.NDArray[np.bool_]
    coefficients: Floats
    max_norm: Floats
    max_value: Floats
    averaging: Floats
    pruning: Floats
    z_loss: Floats
    label_smoothing: Floats
    dropout: Floats
    dropout_keys: Ints

    def __len__(self) -> int:
        """Q."""
        return len(self.due)

    @property
    def uses(self) -> Uses:
        """What some slot asks for."""
        due = self.coefficients[self.due]  # (n, C)
        names = Coefficients._fields
        embedding, attention, residual = self.dropout
        return Uses(
            given=self.given is not None,
            z_loss=bool(self.z_loss.any()),
            label_smoothing=bool(self.label_smoothing.any()),
            max_value=bool(np.isfinite(self.max_value).any()),
            averaging=bool(self.averaging.any()),
            embedding_dropout=bool(embedding.any()),
            attention_dropout=tuple(np.flatnonzero(attention).tolist()),
            residual_dropout=bool(residual.any()),
            columns=tuple(bool(column.any()) for column in due.T),
            adaptive=bool(due[:, names.index("adaptive")].all()),
        )

    def packed(self) -> tuple[npt.NDArray[np.float32], Ints]:
        """All numbers in two arrays, (Q, K, …) each, as `Tick` reads them."""
        like = self.weight  # (Q, K)
        parts = {
            "weight": like, "max_norm": self.max_norm, "max_value": self.max_value,
            "averaging": self.averaging, "z_loss": self.z_loss,
            "label_smoothing": self.label_smoothing, **dict(zip(PLACES, self.dropout, strict=True)),
        }  # fmt: skip
        columns = [np.broadcast_to(parts[name], like.shape) for name in _FLOATS]
        floats = np.concatenate([np.stack(columns, -1), self.coefficients], -1)
        ints = np.concatenate([np.stack([self.due, self.dropout_keys], -1), self.numbers], -1)
        return floats.astype(np.float32), ints


class Tick:
    """One tick's part of a packed plan, as views of tensors on the device.

    Args:
        floats: (K, …), a tick of `Plan.packed`.
        ints: (K, …), likewise.
        given: inputs and targets (K, b, T) and perhaps sources (K, b, S), if the host read them.

    Attributes:
        numbers: (K, b) int64.
        weight: (K,) float32; and so on, as for `Plan`.
        coefficients: (K, C) float32.
        dropout: (3, K) float32.
        due: (K,) bool.
    """

    def __init__(self, floats: Tensor, ints: Tensor, given: tuple[Tensor, ...]) -> None:
        self.floats, self.ints, self.given = floats, ints, given
        column = dict(zip(_FLOATS, floats.unbind(1), strict=False))
        self.weight, self.max_norm = column["weight"], column["max_norm"]
        self.max_value, self.averaging = column["max_value"], column["averaging"]
        self.z_loss, self.label_smoothing = column["z_loss"], column["label_smoothing"]
        first = _FLOATS.index(PLACES[0])
        self.dropout = floats[:, first : first + len(PLACES)].T
        self.coefficients = floats[:, len(_FLOATS) :]
        self.dropout_keys, self.numbers = ints[:, 1], ints[:, len(_INTS) :]

    @property
    def due(self) -> Tensor:
        """Whose update happens after this tick, (K,) bool."""
        return self.ints[:, 0] != 0

    def copy_(self, other: Tick) -> None:
        """Become another tick, in the same memory."""
        self.floats.copy_(other.floats)
        self.ints.copy_(other.ints)
        for own, new in zip(self.given, other.given, strict=True):
            own.copy_(new)

    def clone(self) -> Tick:
        """The same in memory of its own."""
        return Tick(self.floats.clone(), self.ints.clone(), tuple(x.clone() for x in self.given))


def upload(plan: Plan, device: torch.device) -> list[Tick]:
    """The ticks of a plan, brought to the device together and without waiting for it."""
    floats, ints = (_sent(array, device) for array in plan.packed())
    given = [_sent(ids, device) for ids in plan.given or () if ids is not None]
    return [Tick(floats[q], ints[q], tuple(x[q] for x in given)) for q in range(len(plan))]


def _sent(array: npt.NDArray[np.float32] | Ints, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
