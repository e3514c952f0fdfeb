"""What happens at a report point: validation, the state is saved, and a Report is made.

k = slots that report together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from model import checkpoint, states
from model.architecture import Architecture
from model.bleu import bleu
from model.pairs import Pairs
from model.randomness import derive_key, permute
from model.reading import Ints, Reading
from model.report import Report, Status
from model.slots import Slot
from model.stack import Stack

_TRANSLATED = 64  # sources at a time


class Reporter:
    """Evaluates slots, saves their states, and makes their reports.

    Args:
        validation: what they are evaluated on.
        folder: where states are saved; None saves nothing.
        decode: from token ids to text, if what an encoder–decoder writes is to be compared with
            the targets.
    """

    def __init__(
        self,
        validation: Reading,
        folder: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        self._validation, self._folder, self._decode = validation, folder, decode

    def diverged(self, slot: Slot) -> Report:
        """The last report of a trial whose loss or gradient was not finite."""
        return _report(slot, math.nan, Status.DIVERGED)

    def at_report(
        self, stack: Stack, slots: Sequence[Slot], rows: Sequence[int]
    ) -> Iterator[tuple[int, Report]]:
        """Evaluate the slots of a stack that reached a report, save them, and report.

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
            sequences = self._validation.rows(self._numbers(a, size), a)
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
    ) -> Report:
        total = slot.spec.hyperparameters.total_steps
        status = Status.FINISHED if slot.step == total else Status.TRAINING
        if not math.isfinite(val_loss):
            val_loss, status = math.nan, Status.DIVERGED
        sparsity = score = path = problem = None
        if slot.spec.hyperparameters.target_sparsity > 0:
            sparsity = stack.sparsity(row)
        if accuracy is not None and status is Status.FINISHED and self._decode:
            score = self._bleu(stack, row, slot, self._decode)
        if self._folder is not None and status is not Status.DIVERGED:
            path = states.path_of(self._folder, slot.trial_id, slot.step)
            problem = _save(path, stack, row, slot, val_loss)
        return _report(
            slot,
            val_loss,
            status,
            None if problem else path,
            problem,
            sparsity=sparsity,
            accuracy=accuracy,
            score=score,
        )

    def _bleu(
        self, stack: Stack, row: int, slot: Slot, decode: Callable[[list[int]], str]
    ) -> float:
        """How well a slot writes the targets of the validation pairs that it is evaluated on."""
        assert isinstance(self._validation, Pairs)
        a = stack.architecture
        numbers = self._numbers(a, slot.spec.validation_sequences)
        sources = self._validation.rows(numbers, a).sources
        assert sources is not None
        written = stack.translate(row, sources, a.context_length, _TRANSLATED)
        wanted = [self._validation.target(number).tolist() for number in numbers.tolist()]
        return bleu([decode(ids) for ids in written], [decode(ids) for ids in wanted])


def _save(path: Path, stack: Stack, row: int, slot: Slot, val_loss: float) -> str | None:
    """Save a slot; what kept it from it: a full disk does not end the training."""
    about = {
        "trial_id": slot.trial_id,
        "step": slot.step,
        "val_loss": val_loss,
        "val_losses": [*slot.val_losses, val_loss],
        "spec": slot.spec.model_dump(mode="json"),
        "spec_hash": slot.spec.hash,
    }
    snapshot = stack.snapshot(row)
    try:
        checkpoint.write(path, snapshot, about)
    except OSError as error:
        return f"the state at update {slot.step} could not be saved: {error.strerror}"
    return None


def _report(
    slot: Slot,
    val_loss: float,
    status: Status,
    path: Path | None = None,
    problem: str | None = None,
    *,
    sparsity: float | None = None,
    accuracy: float | None = None,
    score: float | None = None,
) -> Report:
    problems = [text for text in (slot.problem, problem) if text]
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
        problem="; ".join(problems) or None,
    )
