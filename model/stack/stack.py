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

from model.corpus.dataset import Batch, Ints
from model.corpus.device_dataset import DeviceDataset
from model.device.async_copy import Copied, begin_copy
from model.device.precision import Precision, exact_device
from model.keys import derive_key
from model.network.dropout import Dropping
from model.network.encoder_decoder import EncoderDecoder
from model.network.layers import Weights
from model.network.lora import SCALE, change_of, initial_adapter
from model.network.transformer import LanguageModel, initial_weight
from model.optimizers.pruning import OFF, sparsity
from model.spec.architecture import Architecture
from model.spec.multipliers import initial_std
from model.stack import compiled
from model.stack.base import Base
from model.stack.compiled_updates import CompiledUpdates
from model.stack.cuda_graphs import Graphs, Result, capturing
from model.stack.evaluation import Evaluation, evaluate, log_probabilities
from model.stack.gradients import Gradients
from model.stack.matrices import Matrices
from model.stack.plan import ActiveFeatures, Floats, QuantumPlan, Tick, upload
from model.stack.tick_kind import TickKind
from model.stack.updates import BatchedUpdates, PerSlotUpdates, Updates

if TYPE_CHECKING:  # imports triton, which not all machines have
    from model.optimizers.adamw_triton import Kernel


class Measured(NamedTuple):
    """Numbers of the ticks of a quantum.

    Attributes:
        losses: (Q, K) nats per token, with label smoothing and z-loss.
        plain_losses: (Q, K) nats per token without them: cross-entropy.
        norms: (Q, K) norms of the gradients before clipping, valid only where an update was due.
    """

    losses: Floats
    plain_losses: Floats
    norms: Floats


class Stack:
    """K models of one architecture on one device.

    Args:
        architecture: architecture of all slots.
        width: K.
        device: device of the tensors.
        precision: precision of the computation.
        data: training data on the device; None if the host reads the token ids.
        graphs: runs ticks as CUDA graphs, with one update for all slots. None makes them on a GPU;
            elsewhere ticks run operation by operation, and slots are updated one by one.
        is_compiled: True to run compiled ticks, which need a CPU and a width of 1.
        masks_targets: as for `Gradients`.
        base: frozen weights of LoRA trials, whose slots train adapters; None trains all weights.

    Attributes:
        base: frozen weights of LoRA trials.
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
        is_compiled: bool = False,
        masks_targets: bool = False,
        base: Base | None = None,
    ) -> None:
        assert (base is not None) == (architecture.lora_rank > 0)
        self.architecture, self.base = architecture, base
        self.width = width
        self.device = torch.device(device)
        self.data = data
        self._masks_targets = masks_targets
        self._compute = Gradients(architecture, precision.products, masks_targets=masks_targets)
        self._precision = precision
        self._model, self._ignored = self._compute.model, self._compute.ignored
        self._matrices = Matrices(architecture, width, self.device, precision.compute)
        self._scales = torch.zeros(width, device=self.device)  # s of LoRA, (K,)
        self._frozen = {} if base is None else {**base.weights, SCALE: self._scales}
        self._graphs = graphs
        if self.device.type == "cuda" and graphs is None:
            self._graphs = Graphs(capturing(self.device))
        self._compiled = CompiledUpdates(self._matrices) if is_compiled else None
        self._per_slot: PerSlotUpdates | None = self._compiled
        if self._per_slot is None and self._graphs is None:
            self._per_slot = PerSlotUpdates(self._matrices)
        self._kernel = _kernel(self._matrices)
        self._kinds: dict[ActiveFeatures, tuple[Updates, Dropping]] = {}

    @torch.no_grad()
    def load(
        self,
        slot: int,
        seed: int,
        state: Mapping[str, Tensor] | None = None,
        *,
        averaged: bool = False,
        scale: float = 0.0,
    ) -> None:
        """Load a trial into a slot.

        Args:
            slot: number of the slot; an earlier trial in it is overwritten.
            seed: seed of the trial's initial weights.
            state: tensors of a snapshot, to load instead of initial weights.
            averaged: True to keep a running mean of the weights, which `evaluate` uses.
            scale: factor s of LoRA's change of a matrix.
        """
        matrices, self._scales[slot] = self._matrices, scale
        matrices.clear(slot, averaged=averaged)
        for kind, matrix in matrices.state_of(slot).items():
            for name, view in matrices.views(matrix[slot : slot + 1]).items():
                if state is not None:
                    view[0] = state[f"{kind}.{name}"].to(self.device)
                elif kind in {"weights", "mean"}:
                    view[0] = self._initial(seed, name, matrices.shapes[name])
        matrices.refresh(slot)
        if self._per_slot is not None:
            self._per_slot.clear(slot)

    def _initial(self, seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return an initial weight of a trial, a function of its seed and the weight's name."""
        if self.base is not None:
            key, exact = derive_key(seed, "weights", name), exact_device(self.device)
            return initial_adapter(key, name, shape, exact).to(self.device)
        std = initial_std(self.architecture, name)
        return initial_weight(seed, name, shape, self.device, std)

    def snapshot(self, slot: int) -> dict[str, Tensor]:
        """Return a copy of a slot's weights, moments and mean on the CPU, without K."""
        return self.begin_snapshot(slot)()

    def begin_snapshot(self, slot: int) -> Copied:
        """Begin a snapshot; return a function that waits for it. The slot may change meanwhile."""
        rows = {kind: matrix[slot] for kind, matrix in self._matrices.state_of(slot).items()}
        # the returned function must not refer to the stack: it would keep its memory alive
        copied, views = begin_copy(rows), self._matrices.views

        def snapshot() -> dict[str, Tensor]:
            return {
                f"{kind}.{name}": view[0]
                for kind, row in copied().items()
                for name, view in views(row.unsqueeze(0)).items()
            }

        return snapshot

    def bytes_of(self, slot: int) -> int:
        """Return the size of a slot's snapshot in bytes."""
        return sum(matrix[slot].nbytes for matrix in self._matrices.state_of(slot).values())

    @torch.no_grad()
    def sparsity(self, slot: int) -> float:
        """Return the share of a slot's matrices that is zero."""
        return sparsity(self._matrices.theta[slot], self._matrices.layout.weights)

    @torch.no_grad()
    def adapter_change(self, slot: int) -> tuple[float, float] | None:
        """Return the norm of a slot's adapters, and that of their change of the base as a share.

        None without LoRA.
        """
        if self.base is None:
            return None
        views = self._matrices.views(self._matrices.theta[slot : slot + 1])
        exact = exact_device(self.device)
        adapters = {name: view[0].to(exact) for name, view in views.items()}
        return change_of(adapters, self.base.squares, self._scales[slot].to(exact))

    def run(self, plan: QuantumPlan) -> Callable[[], Measured]:
        """Train one quantum; a GPU still works on it after the return.

        Returns:
            Function that waits for the quantum and returns its numbers. A slot whose loss or norm
            is not finite stops changing at that update.
        """
        features = plan.features
        if self._graphs is not None and features.attention_dropout:
            # A graph computes attention with and without dropout for all slots, and the rates on
            # the device pick one: a refill that changes who drops needs no new graph.
            features = features._replace(attention_dropout=tuple(range(self.width)))
        rows = 3 if features.label_smoothing or features.z_loss else 2
        results = torch.zeros(rows, len(plan), self.width, device=self.device)
        for q, tick in enumerate(upload(plan, self.device)):
            for row, result in zip(results, self._run_tick(features, tick, plan, q), strict=False):
                row[q].copy_(result)

        def wait() -> Measured:
            losses, *plain, norms = results.cpu().double().numpy()
            return Measured(losses, plain[0] if plain else losses, norms)

        return wait

    def _run_tick(self, features: ActiveFeatures, tick: Tick, plan: QuantumPlan, q: int) -> Result:
        """Run a tick; return its losses (K,), and after an update the gradient norms (K,)."""
        if features not in self._kinds:
            dropping = Dropping(
                features.embedding_dropout, features.attention_dropout, features.residual_dropout,
                self.width, self.device, adapters=features.adapter_dropout,
                together=self._graphs is not None,
            )  # fmt: skip
            updates = self._per_slot or BatchedUpdates(self._matrices, features, self._kernel)
            self._kinds[features] = updates, dropping
        is_due = bool(plan.due[q].any())

        # Everything that differs between two ticks of one graph comes in through `tick`, on the
        # device. `plan` and `q` are numbers of the host, which a graph would freeze at those of
        # its capture. They are closed over nevertheless, because only updates that never run in a
        # graph read them: per-slot updates, which need Python numbers, and pruning, below. Batched
        # updates without pruning read the tick alone.
        def compute(tick: Tick) -> Result:
            updates, dropping = self._kinds[features]
            if self._compiled is not None:
                losses, row = self._compiled_gradients(tick, features)
                self._compiled.add_row(row, plan.due[q])
            else:
                losses, grads = self._gradients(tick, features, dropping)
                updates.add(grads, plan.due[q])
            if not is_due:
                return losses
            with torch.no_grad():
                return *losses, updates.apply(tick, plan, q)

        # the host decides in Python which slots prune, and how much: such a tick cannot be a graph
        if self._graphs is None or (plan.pruning[q] != OFF).any():
            return compute(tick)
        return self._graphs.run((features, is_due), compute, tick)

    def _gradients(
        self, tick: Tick, features: ActiveFeatures, dropping: Dropping
    ) -> tuple[Result, tuple[Tensor, ...]]:
        """Run the forward and the backward pass of a tick; return losses (K,) and gradients."""
        ids = tick.host_batch
        if not ids:
            assert self.data is not None
            ids = self.data.batch(tick.indices, self.architecture)
        losses, grads = self._compute(
            self._matrices.weights,
            ids,
            tick.weight,
            dropping.masks(tick.dropout_keys, tick.dropout),
            tick.label_smoothing if features.label_smoothing else None,
            tick.z_loss if features.z_loss else None,
            self._frozen,
        )
        self._matrices.alive &= losses[0].isfinite()
        return losses, grads

    def _compiled_gradients(self, tick: Tick, features: ActiveFeatures) -> tuple[Result, Tensor]:
        """Do the work of `_gradients` by compiled code; the gradients are a row, (1, P)."""
        kind = TickKind(
            self.architecture,
            tick.indices.shape[1],
            self._precision.name,
            features.label_smoothing,
            features.z_loss,
            features.embedding_dropout,
            bool(features.attention_dropout),
            features.residual_dropout,
            has_examples=self._masks_targets,
            is_packed=self._masks_targets and len(tick.host_batch) > 2,
        )
        losses, row = compiled.run(
            kind,
            (
                self._matrices.copy.detach(), tick.weight, tick.label_smoothing, tick.z_loss,
                tick.dropout, tick.dropout_keys, *tick.host_batch,
            ),
        )  # fmt: skip
        self._matrices.alive &= losses[0].isfinite()
        return losses, row

    @torch.no_grad()
    def evaluate(self, slots: list[int], rows: Batch, batch: int) -> Evaluation:
        """Return the mean loss of k slots on the same sequences, without dropout and smoothing.

        A slot whose weights are averaged is evaluated with their mean.

        Args:
            slots: numbers of the slots.
            rows: the sequences.
            batch: sequences at a time.
        """
        computed = self._computed(slots)
        found = evaluate(self._model, self._evaluated(computed), rows, batch, ignored=self._ignored)
        return found.of([computed.index(slot) for slot in slots])

    def _computed(self, slots: list[int]) -> list[int]:
        """Return the slots that an evaluation of some slots computes."""
        # all slots with graphs: kernels may round by how many there are
        return slots if self._graphs is None else list(range(self.width))

    def _evaluated(self, slots: list[int]) -> Weights:
        """Return the weights with which some slots are evaluated, those of the base among them."""
        weights = self._matrices.evaluated(slots)
        if self.base is None:
            return weights
        return {**self._frozen, **weights, SCALE: self._scales[slots]}

    @torch.no_grad()
    def log_probabilities(
        self, slots: list[int], inputs: Ints, targets: Ints, batch: int
    ) -> Floats:
        """Return for each slot the sums of the logarithms of the targets' probabilities.

        Args:
            slots: numbers of k slots, of language models.
            inputs: (N, T) int64, texts.
            targets: (N, T) int64, IGNORED where none counts.
            batch: texts at a time.

        Returns:
            (k, N) float64.
        """
        assert isinstance(self._model, LanguageModel)
        computed = self._computed(slots)
        found = log_probabilities(self._model, self._evaluated(computed), inputs, targets, batch)
        return found[[computed.index(slot) for slot in slots]]

    @torch.no_grad()
    def translate(self, slot: int, sources: Ints, length: int, batch: int) -> list[list[int]]:
        """Translate sources greedily with the model of a slot, an encoder–decoder.

        Args:
            slot: number of the slot.
            sources: (N, S) int64 token ids.
            length: most tokens of a target.
            batch: sources at a time.

        Returns:
            N targets without their end of text.
        """
        assert isinstance(self._model, EncoderDecoder)
        weights = self._matrices.evaluated([slot])
        ids = torch.from_numpy(sources).to(self.device).unsqueeze(0)  # (1, N, S)
        chunks = (ids[:, start : start + batch] for start in range(0, len(sources), batch))
        targets = (self._model.greedy(weights, chunk, length)[0].tolist() for chunk in chunks)
        end = self.architecture.end_of_text
        return [
            list(takewhile(lambda token: token != end, target))
            for part in targets
            for target in part
        ]


def _kernel(matrices: Matrices) -> Kernel | None:
    """Return the kernel that updates all slots in one pass; None without Triton or a GPU.

    Without the kernel an update takes a pass over memory for each operation.
    """
    if matrices.device.type != "cuda" or find_spec("triton") is None:
        return None
    from model.optimizers.adamw_triton import Kernel

    return Kernel(matrices.layout, matrices.theta.shape[1], matrices.device)
