"""What happens at a report point: validation, saving of the state begins, and a Report is made.

k = slots that report together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoints import store as states
from model.checkpoints.writer import PendingWrite, Snapshot, Writer
from model.corpus.dataset import Dataset, Ints
from model.corpus.pairs import PairDataset
from model.engine.bleu import bleu
from model.engine.report import Report, Status
from model.engine.slot import Slot
from model.keys import derive_key
from model.randomness import permute
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.stack import Stack

_TRANSLATED = 64  # sources at a time


@dataclass(frozen=True)
class PendingReport:
    """A report that goes out once the state that it names is on the disk.

    Attributes:
        report: as it is if the state can be saved.
        saving: of the state; None if it names none.
    """

    report: Report
    saving: PendingWrite | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it may go out."""
        return self.saving is None or self.saving.is_done

    def delivered(self) -> Report:
        """The report, which says so if the state could not be saved."""
        problem = self.saving.problem if self.saving else None
        if problem is None:
            return self.report
        problem = f"the state at update {self.report.step} could not be saved: {problem}"
        problems = [text for text in (self.report.problem, problem) if text]
        return replace(self.report, checkpoint=None, problem="; ".join(problems))


class Evaluator:
    """Evaluates slots, begins to save their states, and makes their reports.

    Args:
        validation: what they are evaluated on.
        writer: saves states.
        folder: where they are saved; None saves nothing.
        decode: from token ids to text, if what an encoder–decoder writes is to be compared with
            the targets.
    """

    def __init__(
        self,
        validation: Dataset,
        writer: Writer,
        folder: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        self._validation, self._writer = validation, writer
        self._folder, self._decode = folder, decode

    def diverged(self, slot: Slot) -> PendingReport:
        """The last report of a trial whose loss or gradient was not finite."""
        return PendingReport(_report(slot, math.nan, Status.DIVERGED))

    def at_report(
        self, stack: Stack, slots: Sequence[Slot], rows: Sequence[int]
    ) -> Iterator[tuple[int, PendingReport]]:
        """Evaluate the slots of a stack that reached a report, begin to save them, and report.

        The slots may train on at once, or be filled with others.

        Args:
            stack: the stack.
            slots: all of them.
            rows: those that reached a report.

        Yields:
            Each row and its report, also of slots that are silent.
        """
        by_size: dict[int, list[int]] = {}
        for row in rows:
            by_size.setdefault(slots[row].spec.validation_sequences, []).append(row)
        for size, same in by_size.items():
            a, batch = stack.architecture, slots[same[0]].spec.micro_batch
            sequences = self._validation.batch(self._numbers(a, size), a)
            evaluation = stack.evaluate(same, sequences, batch)
            for i, row in enumerate(same):
                accuracy = None if evaluation.accuracy is None else float(evaluation.accuracy[i])
                loss = float(evaluation.loss[i])
                yield row, self._report_row(stack, row, slots[row], loss, accuracy)

    def _numbers(self, a: Architecture, size: int) -> Ints:
        """The sequences that every trial is evaluated on: some of them, from all over the text."""
        available = self._validation.num_sequences(a)
        return permute(np.arange(size), available, derive_key(0, "validation"))

    def _report_row(
        self, stack: Stack, row: int, slot: Slot, val_loss: float, accuracy: float | None
    ) -> PendingReport:
        total = slot.spec.hyperparameters.total_steps
        status = Status.FINISHED if slot.step == total else Status.TRAINING
        if not math.isfinite(val_loss):
            val_loss, status = math.nan, Status.DIVERGED
        sparsity = score = path = saving = None
        if slot.spec.hyperparameters.target_sparsity > 0:
            sparsity = stack.sparsity(row)
        if accuracy is not None and status is Status.FINISHED and self._decode:
            score = self._bleu(stack, row, slot, self._decode)
        if self._folder is not None and status is not Status.DIVERGED:
            path = states.path_of(self._folder, slot.trial_id, slot.step)
            saving = self._writer.save(slot.trial_id, path, _snapshot(stack, row, slot, val_loss))
        report = _report(
            slot, val_loss, status, path, sparsity=sparsity, accuracy=accuracy, score=score
        )
        return PendingReport(report, saving)

    def _bleu(
        self, stack: Stack, row: int, slot: Slot, decode: Callable[[list[int]], str]
    ) -> float:
        """How well a slot writes the targets of the validation pairs that it is evaluated on."""
        assert isinstance(self._validation, PairDataset)
        a = stack.architecture
        numbers = self._numbers(a, slot.spec.validation_sequences)
        sources = self._validation.batch(numbers, a).sources
        assert sources is not None
        written = stack.translate(row, sources, a.context_length, _TRANSLATED)
        wanted = [self._validation.target(number).tolist() for number in numbers.tolist()]
        return bleu([decode(ids) for ids in written], [decode(ids) for ids in wanted])


def _snapshot(stack: Stack, row: int, slot: Slot, val_loss: float) -> Snapshot:
    """What is saved of a slot; what it says is made where it is written."""
    losses = [*slot.val_losses, val_loss]
    about = partial(_about, slot.trial_id, slot.spec, slot.step, losses)
    return Snapshot(stack.begin_snapshot(row), about, stack.bytes_of(row))


def _about(trial_id: str, spec: TrialSpec, step: int, losses: Sequence[float]) -> Mapping[str, Any]:
    return {
        "trial_id": trial_id,
        "step": step,
        "val_loss": losses[-1],
        "val_losses": losses,
        "spec": spec.model_dump(mode="json"),
        "spec_hash": spec.hash,
    }


def _report(
    slot: Slot,
    val_loss: float,
    status: Status,
    path: Path | None = None,
    *,
    sparsity: float | None = None,
    accuracy: float | None = None,
    score: float | None = None,
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
        sparsity=sparsity,
        token_accuracy=accuracy,
        bleu=score,
        problem=slot.problem,
    )
