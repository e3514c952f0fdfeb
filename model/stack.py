"""A stack: K models of one architecture, held and trained as one set of tensors.

All parameters of all slots lie in one matrix (K, P), and so do the gradients and the two moments.
A slot is a row: loading, clearing and saving a trial touches one row, and an update of every
parameter of every trial is a few operations on whole matrices. Named weights are views of it.

K = slots, P = padded parameters, Q = ticks of a quantum, b = sequences of a micro-batch,
T = tokens, S = tokens of a source, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.architecture import Architecture, parameter_shapes
from model.dropout import DropoutRates
from model.encoder_decoder import EncoderDecoder
from model.losses import clip_grads_, cross_entropy
from model.optimizers import Layout, stack_rows, update
from model.pruning import KEEP, OFF, mask_, prune_, sparsity
from model.reading import IGNORED, Ints, Rows
from model.transformer import LanguageModel, initial_weight

Floats = npt.NDArray[np.float64]

# Every parameter starts at a multiple of 64 floats, so that all rows are aligned alike: kernels
# may round differently at the unaligned edges of an array, and where those lie must not depend
# on the slot.
_ALIGNMENT = 64


class Evaluation(NamedTuple):
    """What some slots, k of them, reach on the same sequences.

    Attributes:
        loss: (k,) nats per token.
        accuracy: (k,) share of the tokens that were the most probable; None without an encoder.
    """

    loss: Floats
    accuracy: Floats | None


@dataclass(frozen=True)
class Plan:
    """What a stack does in one quantum, uploaded at once.

    Attributes:
        inputs: (Q, K, b, T) int64 token ids.
        targets: (Q, K, b, T) int64, IGNORED where there is none.
        sources: (Q, K, b, S) int64 token ids; None without an encoder.
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

    inputs: Ints
    targets: Ints
    sources: Ints | None
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


class Stack:
    """K models of one architecture on one device.

    Args:
        architecture: the shape that all slots share.
        width: K.
        device: where the tensors lie.
    """

    def __init__(self, architecture: Architecture, width: int, device: str | torch.device) -> None:
        self.architecture = architecture
        self.width = width
        self.device = torch.device(device)
        has_encoder = architecture.n_encoder_layers > 0
        self._model = EncoderDecoder(architecture) if has_encoder else LanguageModel(architecture)
        self._ignored = IGNORED if has_encoder else None
        self._shapes = parameter_shapes(architecture)
        self._offsets: dict[str, int] = {}
        end = 0
        for name, shape in self._shapes.items():
            self._offsets[name] = end
            end += _ALIGNMENT * math.ceil(math.prod(shape) / _ALIGNMENT)
        self._layout = Layout.of(self._shapes, self._offsets, end)
        self._theta, self._m, self._v, self._grad = (
            torch.zeros(width, end, device=self.device) for _ in range(4)
        )
        self._alive = torch.zeros(width, dtype=torch.bool, device=self.device)
        self._mean: Tensor | None = None  # θ̄, (K, P), from the first slot on that wants one
        self._averaged: set[int] = set()
        self._weights = {
            name: view.requires_grad_() for name, view in self._views(self._theta).items()
        }
        self._grads = list(self._views(self._grad).values())

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views (k, *shape) of a matrix (k, P)."""
        return {
            name: flat[:, self._offsets[name] :][:, : math.prod(shape)].view(-1, *shape)
            for name, shape in self._shapes.items()
        }

    @torch.no_grad()
    def load(
        self,
        slot: int,
        seed: int,
        state: Mapping[str, Tensor] | None = None,
        *,
        averaged: bool = False,
    ) -> None:
        """Put a trial into a slot: fresh from its seed, or as a snapshot left it.

        `averaged` says whether a running mean of its weights is kept, and used by `evaluate`.
        """
        self._averaged = self._averaged - {slot} | ({slot} if averaged else set())
        if averaged and self._mean is None:
            self._mean = torch.zeros_like(self._theta)
        rows = self._rows(slot)
        for matrix in (*rows.values(), self._grad):
            matrix[slot] = 0
        for kind, matrix in rows.items():
            for name, view in self._views(matrix[slot : slot + 1]).items():
                if state is not None:
                    view[0] = state[f"{kind}.{name}"].to(self.device)
                elif kind in {"weights", "mean"}:
                    view[0] = initial_weight(seed, name, self._shapes[name]).to(self.device)
        self._alive[slot] = True

    def _rows(self, slot: int) -> dict[str, Tensor]:
        """The matrices (K, P) that hold a slot's state, by kind."""
        rows = {"weights": self._theta, "m": self._m, "v": self._v}
        if slot in self._averaged:
            assert self._mean is not None
            rows["mean"] = self._mean
        return rows

    @torch.no_grad()
    def snapshot(self, slot: int) -> dict[str, Tensor]:
        """A copy of a slot's weights, moments and mean on the CPU, in the shapes of one model."""
        return {
            f"{kind}.{name}": view[0].clone()
            for kind, matrix in self._rows(slot).items()
            for name, view in self._views(matrix[slot : slot + 1].cpu()).items()
        }

    @torch.no_grad()
    def sparsity(self, slot: int) -> float:
        """Share of a slot's matrices that is zero."""
        return sparsity(self._theta[slot], self._layout.weights)

    def run(self, plan: Plan) -> tuple[Floats, Floats]:
        """Train one quantum.

        Returns:
            Losses (Q, K) of every tick, and gradient norms before clipping (Q, K), which mean
            something only where an update was due. A slot whose loss or norm is not finite
            stops changing at that update.
        """
        read = [self._upload(ids) for ids in (plan.inputs, plan.sources) if ids is not None]
        targets = self._upload(plan.targets)
        weight, keys = self._upload(plan.weight), self._upload(plan.dropout_keys)
        # What no slot uses is None, and costs nothing.
        z_loss = self._upload(plan.z_loss if plan.z_loss.any() else None)
        smoothing = self._upload(plan.label_smoothing if plan.label_smoothing.any() else None)
        dropout = DropoutRates(plan.dropout, self.device) if plan.dropout.any() else None
        due = self._upload(plan.due)
        max_norm = self._upload(plan.max_norm)
        max_value = self._upload(plan.max_value if np.isfinite(plan.max_value).any() else None)
        averaging = self._upload(plan.averaging if plan.averaging.any() else None)
        losses, norms = [], []
        for q in range(len(plan.due)):
            drop = None if dropout is None else dropout.masks(keys[q])
            x = self._model.activations(self._weights, *(ids[q] for ids in read), drop=drop)
            loss = self._model.head.loss(
                self._weights, x, targets[q], smoothing, z_loss, ignore_index=self._ignored
            )  # (K,)
            grads = torch.autograd.grad(loss, list(self._weights.values()), weight[q])
            torch._foreach_add_(self._grads, grads)
            losses.append(loss.detach())
            self._alive &= losses[-1].isfinite()
            if plan.due[q].any():
                limit = None if max_value is None else max_value[q]
                share = None if averaging is None else averaging[q]
                norms.append(self._update(plan, q, due[q], max_norm[q], limit, share))
            else:
                norms.append(torch.zeros_like(losses[-1]))
        return torch.stack(losses).double().cpu().numpy(), torch.stack(norms).double().cpu().numpy()

    @torch.no_grad()
    def _update(
        self,
        plan: Plan,
        q: int,
        due: Tensor,
        max_norm: Tensor,
        max_value: Tensor | None,
        averaging: Tensor | None,
    ) -> Tensor:
        """Clip, apply the rule to the slots that are due and alive, prune and average them."""
        pruning = plan.pruning[q].tolist()
        pruned = [slot for slot, share in enumerate(pruning) if share != OFF]
        mask_(self._grad, self._theta, pruned, self._layout.matrices)
        norms = clip_grads_([self._grad], max_norm)  # (K,)
        if max_value is not None:
            limit = max_value.unsqueeze(1)  # (K, 1)
            self._grad.clamp_(-limit, limit)
        self._alive &= norms.isfinite() | ~due
        c = stack_rows(plan.coefficients[q], self.device)
        theta, m, v = update(self._theta, self._m, self._v, self._grad, c, self._layout)
        mask_(theta, self._theta, pruned, self._layout.matrices)
        for slot in pruned:
            if pruning[slot] != KEEP:
                prune_(theta[slot], pruning[slot], self._layout.weights)
        moves = (due & self._alive).unsqueeze(1)  # (K, 1)
        # Asking costs nothing on a CPU and saves three passes; elsewhere it would wait for the
        # device.
        if not (self.device.type == "cpu" and bool(moves.all())):
            theta = torch.where(moves, theta, self._theta)
            m, v = torch.where(moves, m, self._m), torch.where(moves, v, self._v)
        self._theta.copy_(theta)
        self._m, self._v = m, v
        if averaging is not None:
            assert self._mean is not None
            self._mean += averaging.unsqueeze(1) * (self._theta - self._mean)
            both = self._averaged.intersection(pruned)
            mask_(self._mean, self._theta, both, self._layout.matrices)
        if plan.due[q].all():
            self._grad.zero_()
        else:
            self._grad.masked_fill_(due.unsqueeze(1), 0)
        return norms

    def _upload(self, array: npt.NDArray[Any] | None) -> Any:
        """To the device, floats as float32."""
        if array is None:
            return None
        dtype = torch.float32 if array.dtype == np.float64 else None
        return torch.from_numpy(array).to(self.device, dtype, non_blocking=True)

    @torch.no_grad()
    def evaluate(self, slots: list[int], rows: Rows, batch: int) -> Evaluation:
        """Mean loss of some slots over the same sequences, without dropout and smoothing.

        A slot whose weights are averaged is evaluated with their mean.

        Args:
            slots: which, k of them.
            rows: the sequences.
            batch: sequences at a time.
        """
        k, weights = len(slots), self._views(self._theta_of(slots))
        read = [self._upload(ids) for ids in (rows.inputs, rows.sources) if ids is not None]
        targets = self._upload(rows.targets)
        total = torch.zeros(k, dtype=torch.float64, device=self.device)
        correct = torch.zeros(k, dtype=torch.int64, device=self.device)
        for start in range(0, len(targets), batch):
            own = slice(start, start + batch)
            logits = self._model(weights, *(ids[own].expand(k, -1, -1) for ids in read))
            chunk = targets[own].expand(k, -1, -1)  # (k, b, T)
            count = int((rows.targets[own] != IGNORED).sum())
            loss = cross_entropy(logits, chunk, ignore_index=self._ignored)
            total += loss.double() * count
            if self._ignored is not None:
                correct += (logits.argmax(-1) == chunk).sum((1, 2))
        count = int((rows.targets != IGNORED).sum())
        return Evaluation(
            loss=(total / count).cpu().numpy(),
            accuracy=None if self._ignored is None else (correct.double() / count).cpu().numpy(),
        )

    def _theta_of(self, slots: list[int]) -> Tensor:
        """The weights that some slots are evaluated with, (k, P)."""
        rows = self._theta
        if slots != list(range(self.width)):
            rows = rows[slots]
        if self._mean is not None and self._averaged.intersection(slots):
            is_averaged = torch.tensor([[slot in self._averaged] for slot in slots])
            rows = torch.where(is_averaged.to(self.device), self._mean[slots], rows)
        return rows

    @torch.no_grad()
    def translate(self, slot: int, sources: Ints, length: int, batch: int) -> list[list[int]]:
        """The targets that a slot writes for some sources, greedily.

        Args:
            slot: which, with an encoder.
            sources: (N, S) int64 token ids.
            length: the most tokens of a target.
            batch: sources at a time.

        Returns:
            N targets without their end of text.
        """
        assert isinstance(self._model, EncoderDecoder)
        weights = self._views(self._theta_of([slot]))
        given = self._upload(sources).unsqueeze(0)  # (1, N, S)
        chunks = (given[:, start : start + batch] for start in range(0, len(sources), batch))
        written = (self._model.greedy(weights, chunk, length)[0].tolist() for chunk in chunks)
        end = self.architecture.end_of_text
        return [
            list(takewhile(lambda token: token != end, ids)) for part in written for ids in part
        ]
