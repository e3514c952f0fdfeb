"""The engine: admits trials to the slots of stacks, turns the stacks, emits reports.

It knows nothing of Ray, MLflow or search:

    engine = Engine(corpus.train, corpus.validation, slots=4)
    for report in engine.run(specs):
        print(report.trial_id, report.step, report.val_loss)

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens, S = tokens
of a source.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model import checkpoint
from model.architecture import Architecture
from model.bleu import bleu
from model.pairs import Pairs
from model.planning import Slot, SlotState, plan_of
from model.randomness import derive_key, permute
from model.reading import Ints, Reading, Text, Tokens
from model.report import Report, Status
from model.spec import TrialSpec
from model.stack import Plan, Stack
from model.warm_start import first_state

_TRANSLATED = 64  # sources at a time


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
        train: training tokens, 1-D; or pairs, for an encoder–decoder.
        validation: validation tokens, 1-D, or pairs.
        slots: trials in training at one time.
        width: slots per stack; by default 1 on a CPU and `slots` elsewhere.
        device: "cpu", "cuda", "cuda:1" …
        checkpoint_dir: where each trial's state is saved at each report; None saves nothing.
        decode: from token ids to text. With it, what an encoder–decoder writes in the end is
            compared with the targets.
        starts: where `warm_start.keep` has put what warm-started trials begin with.
    """

    def __init__(
        self,
        train: Tokens | Pairs,
        validation: Tokens | Pairs,
        *,
        slots: int = 2,
        width: int | None = None,
        device: str = "cpu",
        checkpoint_dir: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
        starts: Path | None = None,
    ) -> None:
        self._train, self._validation = _reading(train), _reading(validation)
        self._decode = decode
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

        Raises:
            ValueError: if the specification is not of the engine's data.
        """
        self._check(spec)
        self._waiting.append(_Waiting(trial_id, spec, resume))

    def _check(self, spec: TrialSpec) -> None:
        a = spec.architecture
        if (a.n_encoder_layers > 0) != isinstance(self._train, Pairs):
            raise ValueError("an encoder–decoder needs an engine with pairs, and only it does")
        for name, wanted, data in (
            ("training", spec.train_sequences, self._train),
            ("validation", spec.validation_sequences, self._validation),
        ):
            if wanted > data.num_sequences(a):
                raise ValueError(
                    f"the specification reads {wanted} {name} sequences, and the engine's data "
                    f"have {data.num_sequences(a)}"
                )

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
        plan = plan_of(running.slots, *running.shape, self._train)
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
            if not self._account(slot, plan, row, losses[:, row], norms[:, row]):
                reports.append(self._report(slot, math.nan, Status.DIVERGED, None, {}))
                running.slots[row] = Slot()
            elif slot.step in slot.spec.report_steps and slot.tick == 0:
                reached.append(row)
        return reports + self._evaluate(running, reached)

    def _account(
        self,
        slot: Slot,
        plan: Plan,
        row: int,
        losses: npt.NDArray[np.float64],
        norms: npt.NDArray[np.float64],
    ) -> bool:
        """Add up a slot's ticks; False at the first update that is not finite."""
        ticks = zip(
            plan.due[:, row].tolist(),
            plan.weight[:, row].tolist(),
            losses.tolist(),
            norms.tolist(),
            strict=True,
        )
        for is_due, weight, loss, norm in ticks:
            slot.tick += 1
            slot.loss_sum += weight * loss
            slot.loss_weight += weight
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
            sequences = self._validation.rows(self._validation_numbers(a, size), a)
            evaluation = running.stack.evaluate(same, sequences, b)
            for i, row in enumerate(same):
                accuracy = None if evaluation.accuracy is None else float(evaluation.accuracy[i])
                val_loss = float(evaluation.loss[i])
                reports.append(self._report_row(running, row, val_loss, accuracy))
        return reports

    def _validation_numbers(self, a: Architecture, size: int) -> Ints:
        """The sequences that every trial is evaluated on: some of them, from all over the text."""
        available = self._validation.num_sequences(a)
        return permute(np.arange(size), available, derive_key(0, "validation"))

    def _report_row(
        self, running: _Running, row: int, val_loss: float, accuracy: float | None
    ) -> Report:
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
        some: dict[str, float] = {}
        if slot.spec.hyperparameters.target_sparsity > 0:
            some["sparsity"] = running.stack.sparsity(row)
        if accuracy is not None:
            some["token_accuracy"] = accuracy
            if status is Status.FINISHED and self._decode:
                some["bleu"] = self._bleu(running, row, self._decode)
        report = self._report(slot, val_loss, status, path, some)
        slot.val_losses.append(val_loss)
        slot.loss_sum = slot.loss_weight = slot.norm_sum = 0.0
        slot.norm_count = 0
        if status is not Status.TRAINING:
            running.slots[row] = Slot()
        return report

    def _bleu(self, running: _Running, row: int, decode: Callable[[list[int]], str]) -> float:
        """How well a slot writes the targets of the validation pairs that it is evaluated on."""
        assert isinstance(self._validation, Pairs)
        a, size = running.stack.architecture, running.slots[row].spec.validation_sequences
        numbers = self._validation_numbers(a, size)
        sources = self._validation.rows(numbers, a).sources
        assert sources is not None
        written = running.stack.translate(row, sources, a.context_length, _TRANSLATED)
        wanted = [self._validation.target(number).tolist() for number in numbers.tolist()]
        return bleu([decode(ids) for ids in written], [decode(ids) for ids in wanted])

    def _report(
        self,
        slot: Slot,
        val_loss: float,
        status: Status,
        path: Path | None,
        some: Mapping[str, float],
    ) -> Report:
        return Report(
            trial_id=slot.trial_id,
            status=status,
            step=slot.step,
            tokens=slot.step * slot.spec.tokens_per_step,
            val_loss=val_loss,
            train_loss=slot.loss_sum / slot.loss_weight,
            grad_norm=slot.norm_sum / max(1, slot.norm_count),
            learning_rate=slot.learning_rate(slot.step),
            checkpoint=None if path is None else str(path),
            **some,
        )


def _reading(data: Tokens | Pairs) -> Reading:
    return data if isinstance(data, Pairs) else Text(data)
