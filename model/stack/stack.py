"""A stack: K models of one architecture, held and trained as one set of tensors.

K = slots, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens, S = tokens of a
source, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from model.corpus.dataset import IGNORED, Batch, Ints
from model.corpus.device_dataset import DeviceDataset
from model.device.async_copy import Copied, begin_copy
from model.device.precision import Precision
from model.network.dropout import Dropping
from model.network.encoder_decoder import EncoderDecoder
from model.network.transformer import LanguageModel, initial_weight
from model.optimizers.pruning import OFF, sparsity
from model.spec.architecture import Architecture
from model.stack.cuda_graphs import Graphs, Result, capturing
from model.stack.matrices import Matrices
from model.stack.plan import Floats, Plan, Tick, Uses, upload
from model.stack.updates import BatchedUpdates, PerSlotUpdates, Updates

if TYPE_CHECKING:  # brings triton, which not all machines have
    from model.optimizers.adamw_triton import Kernel


class Evaluation(NamedTuple):
    """What some slots, k of them, reach on the same sequences.

    Attributes:
        loss: (k,) nats per token.
        accuracy: (k,) share of the tokens that were the most probable; None without an encoder.
    """

    loss: Floats
    accuracy: Floats | None


class Stack:
    """K models of one architecture on one device.

    Args:
        architecture: the shape that all slots share.
        width: K.
        device: where the tensors lie.
        precision: what it computes in.
        data: what the slots read, if it lies on the device.
        graphs: runs the ticks of a device whose host should not wait for it; None runs them one
            by one.
    """

    def __init__(
        self,
        architecture: Architecture,
        width: int,
        device: str | torch.device,
        precision: Precision = Precision(),  # noqa: B008 - frozen
        *,
        data: DeviceDataset | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        self.architecture = architecture
        self.width = width
        self.device = torch.device(device)
        self.data = data
        has_encoder = architecture.n_encoder_layers > 0
        self._model = EncoderDecoder(architecture) if has_encoder else LanguageModel(architecture)
        self._ignored = IGNORED if has_encoder else None
        self._matrices = Matrices(architecture, width, self.device, precision.compute)
        self._graphs = graphs
        if self.device.type == "cuda" and graphs is None:
            self._graphs = Graphs(capturing(self.device))
        self._each_row = PerSlotUpdates(self._matrices) if self._graphs is None else None
        self._kernel = _kernel(self._matrices)
        self._kinds: dict[Uses, tuple[Updates, Dropping]] = {}

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
        own = self._matrices
        own.clear(slot, averaged=averaged)
        for kind, matrix in own.rows(slot).items():
            for name, view in own.views(matrix[slot : slot + 1]).items():
                if state is not None:
                    view[0] = state[f"{kind}.{name}"].to(self.device)
                elif kind in {"weights", "mean"}:
                    view[0] = initial_weight(seed, name, own.shapes[name], self.device)
        own.refresh(slot)
        if self._each_row is not None:
            self._each_row.clear(slot)

    def snapshot(self, slot: int) -> dict[str, Tensor]:
        """A copy of a slot's weights, moments and mean on the CPU, in the shapes of one model."""
        return self.begin_snapshot(slot)()

    def begin_snapshot(self, slot: int) -> Copied:
        """Begin such a copy; what comes back waits for it, while the slot may change."""
        rows = {kind: matrix[slot] for kind, matrix in self._matrices.rows(slot).items()}
        copied, views = begin_copy(rows), self._matrices.views  # which holds no memory of the stack

        def snapshot() -> dict[str, Tensor]:
            return {
                f"{kind}.{name}": view[0]
                for kind, row in copied().items()
                for name, view in views(row.unsqueeze(0)).items()
            }

        return snapshot

    def bytes_of(self, slot: int) -> int:
        """Size of a slot's snapshot."""
        return sum(matrix[slot].nbytes for matrix in self._matrices.rows(slot).values())

    @torch.no_grad()
    def sparsity(self, slot: int) -> float:
        """Share of a slot's matrices that is zero."""
        return sparsity(self._matrices.theta[slot], self._matrices.layout.weights)

    def run(self, plan: Plan) -> Callable[[], tuple[Floats, Floats]]:
        """Train one quantum; a GPU goes on with that after the return.

        Returns:
            What waits for it, and gives losses (Q, K) of every tick, and gradient norms before
            clipping (Q, K), which mean something only where an update was due. A slot whose loss
            or norm is not finite stops changing at that update.
        """
        uses = plan.uses
        if self._graphs is not None and uses.attention_dropout:  # which slots, is told by rates
            uses = uses._replace(attention_dropout=tuple(range(self.width)))
        found = torch.zeros(2, len(plan), self.width, device=self.device)
        for q, tick in enumerate(upload(plan, self.device)):
            for into, result in zip(found, self._run_tick(uses, tick, plan, q), strict=False):
                into[q].copy_(result)

        def wait() -> tuple[Floats, Floats]:
            losses, norms = found.cpu().double().numpy()
            return losses, norms

        return wait

    def _run_tick(self, uses: Uses, tick: Tick, plan: Plan, q: int) -> Result:
        """Loss (K,), and after an update the gradients' norms (K,)."""
        if uses not in self._kinds:
            dropping = Dropping(
                uses.embedding_dropout, uses.attention_dropout, uses.residual_dropout,
                self.width, self.device, together=self._graphs is not None,
            )  # fmt: skip
            updates = self._each_row or BatchedUpdates(self._matrices, uses, self._kernel)
            self._kinds[uses] = updates, dropping
        is_due = bool(plan.due[q].any())

        def compute(tick: Tick) -> Result:
            updates, dropping = self._kinds[uses]
            loss, grads = self._gradients(tick, uses, dropping)
            updates.add(grads, plan.due[q])
            if not is_due:
                return (loss,)
            with torch.no_grad():
                return loss, updates.apply(tick, plan, q)

        # what is pruned, the host decides
        if self._graphs is None or (plan.pruning[q] != OFF).any():
            return compute(tick)
        return self._graphs.run((uses, is_due), compute, tick)

    def _gradients(
        self, tick: Tick, uses: Uses, dropping: Dropping
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The forward and the backward pass of a tick; losses, (K,), and gradients."""
        own = self._matrices
        if tick.given:
            inputs, targets, *sources = tick.given
        else:
            assert self.data is not None
            inputs, targets, *sources = self.data.batch(tick.numbers, self.architecture)
        drop = dropping.masks(tick.dropout_keys, tick.dropout)
        x = self._model.activations(own.weights, inputs, *sources, drop=drop)
        loss = self._model.head.loss(
            own.weights,
            x,
            targets,
            tick.label_smoothing if uses.label_smoothing else None,
            tick.z_loss if uses.z_loss else None,
            ignore_index=self._ignored,
        )
        grads = torch.autograd.grad(loss, list(own.weights.values()), tick.weight)
        own.alive &= loss.detach().isfinite()
        return loss.detach(), grads

    @torch.no_grad()
    def evaluate(self, slots: list[int], rows: Batch, batch: int) -> Evaluation:
        """Mean loss of some slots over the same sequences, without dropout and smoothing.

        A slot whose weights are averaged is evaluated with their mean.

        Args:
            slots: which, k of them.
            rows: the sequences.
            batch: sequences at a time.
        """
        asked = slots
        if self._graphs is not None:  # all of them: kernels may depend on how many there are
            slots = list(range(self.width))
        k, weights = len(slots), self._matrices.evaluated(slots)
        given = (rows.inputs, rows.targets, rows.sources)
        ids = [torch.from_numpy(each).to(self.device) for each in given if each is not None]
        losses, hits = [], []
        starts = range(0, len(rows.targets), batch)
        for start in starts:
            chunk = [each[start : start + batch].expand(k, -1, -1) for each in ids]
            inputs, targets, *sources = chunk
            x = self._model.activations(weights, inputs, *sources)
            head = self._model.head
            losses.append(head.loss(weights, x, targets, ignore_index=self._ignored))
            if self._ignored is not None:
                hits.append((head(weights, x).argmax(-1) == targets).sum((1, 2)))
        counts = [int((rows.targets[s : s + batch] != IGNORED).sum()) for s in starts]
        each = torch.stack(losses).cpu().double().numpy()  # (chunks, k)
        # one by one: how numpy and torch order a sum depends on k
        loss = sum(
            (c / sum(counts) * part for c, part in zip(counts, each, strict=True)), 0 * each[0]
        )
        own = [slots.index(slot) for slot in asked]
        if not hits:
            return Evaluation(loss[own], None)
        accuracy = torch.stack(hits).cpu().sum(0).double() / sum(counts)
        return Evaluation(loss[own], accuracy.numpy()[own])

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
        weights = self._matrices.evaluated([slot])
        given = torch.from_numpy(sources).to(self.device).unsqueeze(0)  # (1, N, S)
        chunks = (given[:, start : start + batch] for start in range(0, len(sources), batch))
        written = (self._model.greedy(weights, chunk, length)[0].tolist() for chunk in chunks)
        end = self.architecture.end_of_text
        return [
            list(takewhile(lambda token: token != end, ids)) for part in written for ids in part
        ]


def _kernel(matrices: Matrices) -> Kernel | None:
    """What updates the slots of a GPU in one pass; without Triton it takes a pass per operation."""
    if matrices.device.type != "cuda" or find_spec("triton") is None:
        return None
    from model.optimizers.adamw_triton import Kernel

    return Kernel(matrices.layout, matrices.theta.shape[1], matrices.device)
