"""Plan of a quantum: all numbers that its ticks need, made on the host, uploaded at once.

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
from model.device.async_copy import begin_upload
from model.network.dropout import PLACES
from model.optimizers.update_rule import Coefficients

Floats = npt.NDArray[np.float64]

# Columns of the uploaded arrays, before the coefficients and the indices of the sequences.
_FLOATS = ("weight", "max_norm", "max_value", "averaging", "z_loss", "label_smoothing", *PLACES)
_INTS = ("due", "dropout_keys")


class ActiveFeatures(NamedTuple):
    """Features that at least one slot of a quantum uses.

    The others are skipped, which changes no bits. Ticks with equal features run the same kernels.

    Attributes:
        host_batch: True if the token ids come from the host.
        z_loss: True if a slot has a z-loss.
        label_smoothing: True if a slot smooths labels.
        max_value: True if a slot clips gradients by value.
        averaging: True if a slot averages its weights.
        embedding_dropout: True if a slot drops token embeddings.
        attention_dropout: slots that drop attention probabilities.
        residual_dropout: True if a slot drops what branches add to the residual stream.
        adapter_dropout: True if a slot drops inputs of LoRA's matrices.
        columns: for each column of the coefficients, True unless it is zero for all slots.
        adaptive: True if all slots divide by √v̂.
    """

    host_batch: bool
    z_loss: bool
    label_smoothing: bool
    max_value: bool
    averaging: bool
    embedding_dropout: bool
    attention_dropout: tuple[int, ...]
    residual_dropout: bool
    adapter_dropout: bool
    columns: tuple[bool, ...]
    adaptive: bool


@dataclass(frozen=True)
class QuantumPlan:
    """Numbers of one quantum of a stack.

    The rows of `coefficients` are float64, although the device gets float32: a CPU updates its
    slots with the exact numbers of the host, which float64 holds without rounding.

    Attributes:
        indices: (Q, K, b) int64, the training sequences to read.
        host_batch: their ids, (Q, K, b, T) and (Q, K, b, S), if the host has read them, and what
            belongs to them.
        weight: (Q, K) share of a tick in the targets of its update; 0 for an empty row.
        due: (Q, K) bool, True if the slot's update happens after this tick.
        coefficients: (Q, K, C), a row of `optimizers.Coefficients` where due.
        max_norm: (Q, K) τ where due, otherwise infinity.
        max_value: (Q, K) τ_value where due, otherwise infinity.
        averaging: (Q, K) share of the new weights in their mean where due, otherwise 0.
        pruning: (Q, K) value of `pruning_of` where due, otherwise OFF.
        z_loss: (K,), 0 for a slot without.
        label_smoothing: (K,), 0 for a slot without.
        dropout: (4, K), a row for each of `dropout.PLACES`; 0 for a slot without.
        dropout_keys: (Q, K) int64.
    """

    indices: Ints
    host_batch: Batch | None
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
        """Number of ticks, Q."""
        return len(self.due)

    @property
    def features(self) -> ActiveFeatures:
        """Features that at least one slot uses."""
        due = self.coefficients[self.due]  # (n, C)
        names = Coefficients._fields
        embedding, attention, residual, adapters = self.dropout
        return ActiveFeatures(
            host_batch=self.host_batch is not None,
            z_loss=bool(self.z_loss.any()),
            label_smoothing=bool(self.label_smoothing.any()),
            max_value=bool(np.isfinite(self.max_value).any()),
            averaging=bool(self.averaging.any()),
            embedding_dropout=bool(embedding.any()),
            attention_dropout=tuple(np.flatnonzero(attention).tolist()),
            residual_dropout=bool(residual.any()),
            adapter_dropout=bool(adapters.any()),
            columns=tuple(bool(column.any()) for column in due.T),
            adaptive=bool(due[:, names.index("adaptive")].all()),
        )

    def packed(self) -> tuple[npt.NDArray[np.float32], Ints]:
        """Return all numbers in two arrays, (Q, K, …) each, in the layout that `Tick` reads."""
        like = self.weight  # (Q, K)
        parts = {
            "weight": like, "max_norm": self.max_norm, "max_value": self.max_value,
            "averaging": self.averaging, "z_loss": self.z_loss,
            "label_smoothing": self.label_smoothing, **dict(zip(PLACES, self.dropout, strict=True)),
        }  # fmt: skip
        columns = [np.broadcast_to(parts[name], like.shape) for name in _FLOATS]
        floats = np.concatenate([np.stack(columns, -1), self.coefficients], -1)
        ints = np.concatenate([np.stack([self.due, self.dropout_keys], -1), self.indices], -1)
        return floats.astype(np.float32), ints


class Tick:
    """Numbers of one tick on the device, as views of two tensors.

    Args:
        floats: (K, …), a tick of `QuantumPlan.packed`.
        ints: (K, …), a tick of `QuantumPlan.packed`.
        host_batch: inputs and targets (K, b, T), and perhaps sources (K, b, S) or begins of
            examples (K, b, T), if the host read them; otherwise empty.

    Attributes:
        indices: (K, b) int64.
        weight: (K,) float32, as in the plan; so are max_norm, max_value, averaging, z_loss and
            label_smoothing.
        coefficients: (K, C) float32.
        dropout: (4, K) float32.
        dropout_keys: (K,) int64.
        due: (K,) bool.
    """

    def __init__(self, floats: Tensor, ints: Tensor, host_batch: tuple[Tensor, ...]) -> None:
        self.floats, self.ints, self.host_batch = floats, ints, host_batch
        column = dict(zip(_FLOATS, floats.unbind(1), strict=False))
        self.weight, self.max_norm = column["weight"], column["max_norm"]
        self.max_value, self.averaging = column["max_value"], column["averaging"]
        self.z_loss, self.label_smoothing = column["z_loss"], column["label_smoothing"]
        first = _FLOATS.index(PLACES[0])
        self.dropout = floats[:, first : first + len(PLACES)].T
        self.coefficients = floats[:, len(_FLOATS) :]
        self.dropout_keys, self.indices = ints[:, 1], ints[:, len(_INTS) :]

    @property
    def due(self) -> Tensor:
        """Slots whose update happens after this tick, (K,) bool."""
        return self.ints[:, 0] != 0

    def copy_(self, other: Tick) -> None:
        """Take the numbers of another tick, in the same memory."""
        self.floats.copy_(other.floats)
        self.ints.copy_(other.ints)
        for ids, new in zip(self.host_batch, other.host_batch, strict=True):
            ids.copy_(new)

    def clone(self) -> Tick:
        """Return a copy that shares no memory with this tick."""
        ids = tuple(x.clone() for x in self.host_batch)
        return Tick(self.floats.clone(), self.ints.clone(), ids)


def upload(plan: QuantumPlan, device: torch.device) -> list[Tick]:
    """Return the ticks of a plan on the device; copied together, without waiting for a GPU."""
    floats, ints = (begin_upload(array, device) for array in plan.packed())
    arrays = plan.host_batch.arrays if plan.host_batch else []
    host_batch = [begin_upload(ids, device) for ids in arrays]
    return [Tick(floats[q], ints[q], tuple(x[q] for x in host_batch)) for q in range(len(plan))]
