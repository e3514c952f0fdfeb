"""The engine: admits trials to the slots of stacks, turns the stacks, emits reports.

It knows nothing of Ray, MLflow or search:

    engine = Engine(corpus.train, corpus.validation, slots=4)
    for report in engine.run(specs):
        print(report.trial_id, report.step, report.val_loss)

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model import checkpoint
from model.architecture import Architecture
from model.averaging import averaging_share
from model.corpus import sequences
from model.dropout import PLACES
from model.noise import replace_tokens
from model.optimizers import IDLE, coefficients
from model.pruning import pruning_of
from model.randomness import derive_key, permute
from model.report import Report, Status
from model.schedules import Facts, learning_rate
from model.spec import TrialSpec
from model.stack import Plan, Stack
from model.warm_start import first_state

Ints = npt.NDArray[np.int64]

# Ticks between two looks at the outside: an order to stop waits this long at most.
_QUANTUM_TICKS = 8


class SlotState(StrEnum):
    """What a slot is doing."""

    EMPTY = "empty"  # free for the next trial
    TRAINING = "training"  # takes part in every tick


@dataclass
class Slot:
    """One row of a stack and the trial in it."""

    state: SlotState = SlotState.EMPTY
    trial_id: str = ""
    spec: TrialSpec = field(init=False)
    step: int = 0  # updates done
    tick: int = 0  # micro-batches into the next update
    loss_sum: float = 0.0  # since the last report
    loss_count: int = 0
    norm_sum: float = 0.0
    norm_count: int = 0
    val_losses: list[float] = field(default_factory=list)  # of the reports so far

    @property
    def ticks_per_step(self) -> int:
        """B/b: micro-batches of one update."""
        return self.spec.hyperparameters.batch_size // self.spec.micro_batch

    def learning_rate(self, step: int) -> float:
        """α_t of an update before the next report."""
        facts = Facts(self.spec.architecture.d_model, self.val_losses)
        return learning_rate(step, self.spec.hyperparameters, facts)

    @property
    def next_report(self) -> int:
        """The update after which this trial reports next."""
        return next(step for step in self.spec.report_steps if step > self.step)


class _Running:
    """A stack, and what the host knows of its slots."""

    def __init__(self, spec: TrialSpec, width: int, device: torch.device) -> None:
        self.shape = _shape(spec)
        self.stack = Stack(spec.architecture, width, device)
        self.slots = [Slot() for _ in range(width)]

    @property
    def training(self) -> list[int]:
        """Rows that hold a trial."""
        return [i for i, slot in enumerate(self.slots) if slot.state is SlotState.TRAINING]

    @property
    def free(self) -> int | None:
        """A row that holds none."""
        empty = (i for i, slot in enumerate(self.slots) if slot.state is SlotState.EMPTY)
        return next(empty, None)


def _shape(spec: TrialSpec) -> tuple[Architecture, int]:
    """Trials that agree here can share a stack."""
    return spec.architecture, spec.micro_batch


@dataclass(frozen=True)
class _Waiting:
    trial_id: str
    spec: TrialSpec
    resume: Path | None


class Engine:
    """Trains many trials on one device.

    On a CPU it sets torch to one thread for the whole process: small models gain nothing from
    more, and how a sum is split over threads is part of its rounding.

    Args:
        train: training tokens, 1-D.
        validation: validation tokens, 1-D.
        slots: trials in training at one time.
        width: slots per stack; by default 1 on a CPU and `slots` elsewhere.
        device: "cpu", "cuda", "cuda:1" …
        checkpoint_dir: where each trial's state is saved at each report; None saves nothing.
        starts: where `warm_start.keep` has put what warm-started trials begin with.
    """

    def __init__(
        self,
        train: npt.NDArray[np.unsignedinteger],
        validation: npt.NDArray[np.unsignedinteger],
        *,
        slots: int = 2,
        width: int | None = None,
        device: str = "cpu",
        checkpoint_dir: Path | None = None,
        starts: Path | None = None,
    ) -> None:
        self._train, self._validation = train, validation
        self.device = torch.device(device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.slots = slots
        self.width = width or (1 if self.device.type == "cpu" else slots)
        self._checkpoint_dir = checkpoint_dir
        self._starts = starts
        self._running: deque[_Running] = deque()
        self._waiting: deque[_Waiting] = deque()
        self.training_seconds = 0.0  # spent in ticks, without validation and checkpoints
        self.tokens = 0  # trained

    @property
    def load(self) -> int:
        """Trials in training or waiting."""
        return len(self._waiting) + self._active

    @property
    def _active(self) -> int:
        return sum(len(running.training) for running in self._running)

    def admit(self, trial_id: str, spec: TrialSpec, resume: Path | None = None) -> None:
        """Queue a trial for the next free slot.

        Args:
            trial_id: names the trial in its reports.
            spec: what to train.
            resume: a checkpoint of the same specification to go on from.
        """
        self._waiting.append(_Waiting(trial_id, spec, resume))

    def stop(self, trial_id: str) -> None:
        """Free a trial's slot, or take it from the queue; an unknown trial is no error."""
        self._waiting = deque(w for w in self._waiting if w.trial_id != trial_id)
        for running in self._running:
            for row in running.training:
                if running.slots[row].trial_id == trial_id:
                    running.slots[row] = Slot()

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Report]:
        """Train all specifications to the end; trial i is called str(i).

        `stop(report.trial_id)` between two reports stops a trial early.
        """
        for number, spec in enumerate(specs):
            self.admit(str(number), spec)
        while self.load:
            yield from self.turn()

    def turn(self) -> list[Report]:
        """Train the next stack for one quantum and report what was reached."""
        self._fill_slots()
        if not self._running:
            return []
        self._running.rotate(-1)
        running = self._running[-1]
        started = time.perf_counter()
        plan = self._plan(running)
        losses, norms = running.stack.run(plan)
        self.training_seconds += time.perf_counter() - started
        return self._settle(running, plan, losses, norms)

    def _fill_slots(self) -> None:
        """Give free slots to waiting trials, first come first served."""
        while self._waiting and self._active < self.slots:
            trial = self._waiting.popleft()
            self._load(self._stack_for(trial.spec), trial)
        self._running = deque(running for running in self._running if running.training)

    def _stack_for(self, spec: TrialSpec) -> _Running:
        """A stack of this shape with a free row, made if there is none."""
        for running in self._running:
            if running.shape == _shape(spec) and running.free is not None:
                return running
        self._running.append(_Running(spec, self.width, self.device))
        return self._running[-1]

    def _load(self, running: _Running, trial: _Waiting) -> None:
        row = running.free
        assert row is not None
        slot = Slot(SlotState.TRAINING, trial.trial_id)
        slot.spec = trial.spec
        state = None
        if trial.resume is not None:
            state, about = checkpoint.read(trial.resume)
            if about.get("spec_hash") != trial.spec.hash:
                raise checkpoint.CheckpointError(
                    f"{trial.resume} belongs to another specification than trial {trial.trial_id}"
                )
            slot.step, slot.val_losses = about["step"], about["val_losses"]
            if slot.step >= trial.spec.hyperparameters.total_steps:
                raise checkpoint.CheckpointError(f"{trial.resume} is of a trial that has finished")
        elif trial.spec.init_from is not None:
            state = first_state(self._starts, trial.spec)
        averaged = trial.spec.hyperparameters.ema_decay > 0
        running.stack.load(row, trial.spec.seed, state, averaged=averaged)
        running.slots[row] = slot

    def _plan(self, running: _Running) -> Plan:
        """Ticks up to the next report of any slot, with all that they need from the host."""
        rows = running.training
        q_ticks = _QUANTUM_TICKS
        for slot in (running.slots[row] for row in rows):
            ticks = (slot.next_report - slot.step) * slot.ticks_per_step - slot.tick
            q_ticks = min(q_ticks, ticks)
        (a, b), k = running.shape, len(running.slots)
        plan = Plan(
            inputs=np.zeros((q_ticks, k, b, a.context_length), np.int64),
            targets=np.zeros((q_ticks, k, b, a.context_length), np.int64),
            weight=np.zeros(k),
            due=np.zeros((q_ticks, k), np.bool_),
            coefficients=np.tile(IDLE, (q_ticks, k, 1)),
            max_norm=np.full((q_ticks, k), np.inf),
            max_value=np.full((q_ticks, k), np.inf),
            averaging=np.zeros((q_ticks, k)),
            pruning=np.zeros((q_ticks, k)),
            z_loss=np.zeros(k),
            label_smoothing=np.zeros(k),
            dropout=np.zeros((len(PLACES), k)),
            dropout_keys=np.zeros((q_ticks, k), np.int64),
        )
        for row in rows:
            self._plan_slot(plan, row, running.slots[row])
        return plan.without_unused()

    def _plan_slot(self, plan: Plan, row: int, slot: Slot) -> None:
        h, spec = slot.spec.hyperparameters, slot.spec
        moments_before = spec.init_from.optimizer_steps if spec.init_from else 0
        q_ticks, b = plan.inputs.shape[0], spec.micro_batch
        first = slot.step * h.batch_size + slot.tick * b
        positions = first + np.arange(q_ticks * b).reshape(q_ticks, b)
        numbers = data_order(spec.seed, positions, spec.train_sequences)  # (Q, b)
        a = spec.architecture
        inputs, plan.targets[:, row] = sequences(self._train, numbers, a.context_length)
        if h.token_noise:
            key = derive_key(spec.seed, "noise")
            inputs = replace_tokens(
                inputs, h.token_noise, a.vocab_size, a.end_of_text, key, positions
            )
        plan.inputs[:, row] = inputs
        plan.weight[row] = b / h.batch_size
        assert plan.label_smoothing is not None
        assert plan.dropout is not None
        plan.label_smoothing[row], plan.z_loss[row] = h.label_smoothing, h.z_loss
        rates = h.embedding_dropout, h.attention_dropout, h.residual_dropout
        plan.dropout[:, row] = rates
        for q in range(q_ticks):
            update, tick = divmod(slot.tick + q, slot.ticks_per_step)
            step = slot.step + update + 1
            if any(rates):
                key = derive_key(spec.seed, "dropout", step, tick)
                plan.dropout_keys[q, row] = np.uint64(key).astype(np.int64)
            if tick == slot.ticks_per_step - 1:
                plan.due[q, row] = True
                rate = slot.learning_rate(step)
                plan.coefficients[q, row] = coefficients(moments_before + step, rate, h)
                plan.max_norm[q, row] = h.grad_clip or np.inf
                plan.max_value[q, row] = h.grad_clip_value or np.inf
                plan.averaging[q, row] = averaging_share(step, h.ema_decay)
                plan.pruning[q, row] = pruning_of(step, h)

    def _settle(
        self,
        running: _Running,
        plan: Plan,
        losses: npt.NDArray[np.float64],
        norms: npt.NDArray[np.float64],
    ) -> list[Report]:
        """Account for a quantum and report the slots that diverged or reached a report."""
        reports, reached = [], []
        for row in running.training:
            slot = running.slots[row]
            self.tokens += len(losses) * slot.spec.micro_batch * plan.inputs.shape[-1]
            if not self._account(slot, plan.due[:, row], losses[:, row], norms[:, row]):
                reports.append(self._report(slot, math.nan, Status.DIVERGED, None))
                running.slots[row] = Slot()
            elif slot.step in slot.spec.report_steps and slot.tick == 0:
                reached.append(row)
        return reports + self._evaluate(running, reached)

    def _account(
        self,
        slot: Slot,
        due: npt.NDArray[np.bool_],
        losses: npt.NDArray[np.float64],
        norms: npt.NDArray[np.float64],
    ) -> bool:
        """Add up a slot's ticks; False at the first update that is not finite."""
        for is_due, loss, norm in zip(due, losses.tolist(), norms.tolist(), strict=True):
            slot.tick += 1
            slot.loss_sum += loss
            slot.loss_count += 1
            if is_due:
                slot.step, slot.tick = slot.step + 1, 0
                slot.norm_sum += norm
                slot.norm_count += 1
            if not (math.isfinite(loss) and (not is_due or math.isfinite(norm))):
                slot.step += not is_due
                return False
        return True

    def _evaluate(self, running: _Running, rows: list[int]) -> list[Report]:
        """Validation loss and checkpoint of the slots that reached a report, together."""
        reports = []
        by_size: dict[int, list[int]] = {}
        for row in rows:
            by_size.setdefault(running.slots[row].spec.validation_sequences, []).append(row)
        for size, same in by_size.items():
            a, b = running.shape
            available = (len(self._validation) - 1) // a.context_length
            numbers = permute(np.arange(size), available, derive_key(0, "validation"))
            x, y = sequences(self._validation, numbers, a.context_length)
            for row, loss in zip(same, running.stack.evaluate(same, x, y, b), strict=True):
                reports.append(self._report_row(running, row, float(loss)))
        return reports

    def _report_row(self, running: _Running, row: int, val_loss: float) -> Report:
        slot = running.slots[row]
        total = slot.spec.hyperparameters.total_steps
        status = Status.FINISHED if slot.step == total else Status.TRAINING
        if not math.isfinite(val_loss):
            val_loss, status = math.nan, Status.DIVERGED
        path = None
        if self._checkpoint_dir is not None and status is not Status.DIVERGED:
            path = self._checkpoint_dir / f"{slot.trial_id}.safetensors"
            about = {
                "trial_id": slot.trial_id,
                "step": slot.step,
                "val_loss": val_loss,
                "val_losses": [*slot.val_losses, val_loss],
                "spec": slot.spec.model_dump(mode="json"),
                "spec_hash": slot.spec.hash,
            }
            checkpoint.write(path, running.stack.snapshot(row), about)
        is_pruned = slot.spec.hyperparameters.target_sparsity > 0
        sparsity = running.stack.sparsity(row) if is_pruned else None
        report = self._report(slot, val_loss, status, path, sparsity)
        slot.val_losses.append(val_loss)
        slot.loss_sum = slot.norm_sum = 0.0
        slot.loss_count = slot.norm_count = 0
        if status is not Status.TRAINING:
            running.slots[row] = Slot()
        return report

    def _report(
        self,
        slot: Slot,
        val_loss: float,
        status: Status,
        path: Path | None,
        sparsity: float | None = None,
    ) -> Report:
        return Report(
            trial_id=slot.trial_id,
            status=status,
            step=slot.step,
            tokens=slot.step * slot.spec.tokens_per_step,
            val_loss=val_loss,
            train_loss=slot.loss_sum / slot.loss_count,
            grad_norm=slot.norm_sum / max(1, slot.norm_count),
            learning_rate=slot.learning_rate(slot.step),
            checkpoint=None if path is None else str(path),
            sparsity=sparsity,
        )


def data_order(seed: int, positions: Ints, size: int) -> Ints:
    """Which training sequence a trial reads at each position of its endless stream.

    Every epoch is a keyed permutation of its own, so each sequence is read once an epoch.

    Args:
        seed: of the trial.
        positions: sequences read before, any shape, int64.
        size: |Data|, training sequences.

    Returns:
        Sequence numbers in [0, size), of the shape of `positions`.
    """
    epochs, within = positions // size, positions % size
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        numbers[here] = permute(within[here], size, derive_key(seed, "order", int(epoch)))
    return numbers
