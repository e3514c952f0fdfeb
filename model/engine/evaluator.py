"""Report points: validate the trials, begin to write their checkpoints, make their reports.

k = slots that are evaluated together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoints import store
from model.checkpoints.writer import PendingWrite, Snapshot, Writer
from model.corpus.dataset import IGNORED, Dataset, Ints
from model.corpus.pairs import PairDataset
from model.engine.bleu import bleu
from model.engine.report import ADAPTER_METRICS, Report, Status
from model.engine.slot import Slot
from model.keys import derive_key
from model.randomness import permute
from model.sources.choices import ChoiceSet
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.stack import Stack

_TRANSLATION_BATCH = 64  # sources translated at a time


@dataclass(frozen=True)
class PendingReport:
    """A report that waits until its checkpoint is on the disk.

    Attributes:
        report: report that is valid if the checkpoint can be written.
        write: pending write of the checkpoint; None if the report has no checkpoint.
    """

    report: Report
    write: PendingWrite | None = None

    @property
    def is_ready(self) -> bool:
        """True if `resolve` does not wait."""
        return self.write is None or self.write.is_done

    def resolve(self) -> Report:
        """Return the report; if its checkpoint could not be written, with that problem."""
        problem = self.write.problem if self.write else None
        if problem is None:
            return self.report
        problem = f"the checkpoint of update {self.report.step} could not be saved: {problem}"
        problems = [text for text in (self.report.problem, problem) if text]
        return replace(self.report, checkpoint=None, problem="; ".join(problems))


class Evaluator:
    """Evaluates slots, begins to write their checkpoints, and makes their reports.

    Args:
        validation: validation sequences.
        writer: writes the checkpoints.
        folder: folder of the checkpoints; None writes none.
        decode: function from token ids to text; with it, encoder–decoders get a BLEU score.
        choices: questions on which language models are evaluated, too; None for none.
    """

    def __init__(
        self,
        validation: Dataset,
        writer: Writer,
        folder: Path | None = None,
        decode: Callable[[list[int]], str] | None = None,
        choices: ChoiceSet | None = None,
    ) -> None:
        self._validation, self._writer = validation, writer
        self._folder, self._decode, self._choices = folder, decode, choices

    def report_divergence(self, slot: Slot) -> PendingReport:
        """Make the last report of a trial whose loss or gradient was not finite."""
        return PendingReport(_report(slot, math.nan, Status.DIVERGED))

    def evaluate(
        self, stack: Stack, reached: Mapping[int, Slot]
    ) -> Iterator[tuple[int, PendingReport]]:
        """Evaluate slots that reached a report, begin to write their checkpoints, and report.

        After the yield of its report a slot may train on or be filled with another trial.

        Args:
            stack: stack of the slots.
            reached: rows of the stack that reached a report, with their slots.

        Yields:
            Each row and its report, also of trials before their own reports.
        """
        by_size: dict[int, list[int]] = {}
        for row, slot in reached.items():
            by_size.setdefault(slot.spec.validation_sequences, []).append(row)
        for size, rows in by_size.items():
            a, batch = stack.architecture, reached[rows[0]].spec.micro_batch
            sequences = self._validation.batch(self._indices(a, size), a)
            evaluation = stack.evaluate(rows, sequences, batch)
            chosen = self._chosen(stack, rows, batch)
            for i, row in enumerate(rows):
                loss, accuracy, exact = (None if n is None else float(n[i]) for n in evaluation)
                assert loss is not None
                shares = {"token_accuracy": accuracy, **chosen[i]}
                if (change := stack.adapter_change(row)) is not None:
                    shares |= zip(ADAPTER_METRICS, change, strict=True)
                if reached[row].spec.data.learns_answers:
                    shares["exact_match"] = exact
                yield row, self._report_row(stack, row, reached[row], loss, shares)

    def _chosen(self, stack: Stack, rows: list[int], batch: int) -> list[dict[str, float]]:
        """Return for each slot the shares of the questions that it answers right."""
        if self._choices is None:
            return [{} for _ in rows]
        a = stack.architecture
        texts = self._choices.rows(a.context_length, a.end_of_text, IGNORED)
        sums = stack.log_probabilities(rows, *texts, batch)
        return [self._choices.shares(each)._asdict() for each in sums]

    def _indices(self, a: Architecture, size: int) -> Ints:
        """Return the sequences that evaluate every trial: some of them, from the complete text."""
        available = self._validation.num_sequences(a)
        return permute(np.arange(size), available, derive_key(0, "validation"))

    def _report_row(
        self,
        stack: Stack,
        row: int,
        slot: Slot,
        val_loss: float,
        shares: Mapping[str, float | None],
    ) -> PendingReport:
        total = slot.spec.hyperparameters.total_steps
        status = Status.FINISHED if slot.step == total else Status.TRAINING
        if not math.isfinite(val_loss):
            val_loss, status = math.nan, Status.DIVERGED
        sparsity = score = path = write = None
        if slot.spec.hyperparameters.target_sparsity > 0:
            sparsity = stack.sparsity(row)
        if slot.spec.data.pairs and status is Status.FINISHED and self._decode:
            score = self._bleu(stack, row, slot, self._decode)
        if self._folder is not None and status is not Status.DIVERGED:
            path = store.checkpoint_path(self._folder, slot.trial_id, slot.step)
            write = self._writer.save(slot.trial_id, path, _snapshot(stack, row, slot, val_loss))
        report = _report(slot, val_loss, status, path, sparsity=sparsity, bleu=score, **shares)
        return PendingReport(report, write)

    def _bleu(
        self, stack: Stack, row: int, slot: Slot, decode: Callable[[list[int]], str]
    ) -> float:
        """Return the BLEU of a slot's translations of the validation sources."""
        assert isinstance(self._validation, PairDataset)
        a = stack.architecture
        indices = self._indices(a, slot.spec.validation_sequences)
        sources = self._validation.batch(indices, a).sources
        assert sources is not None
        translations = stack.translate(row, sources, a.context_length, _TRANSLATION_BATCH)
        references = [self._validation.target(index).tolist() for index in indices.tolist()]
        return bleu([decode(ids) for ids in translations], [decode(ids) for ids in references])


def _snapshot(stack: Stack, row: int, slot: Slot, val_loss: float) -> Snapshot:
    """Begin a snapshot of a slot; the thread that writes it also makes its metadata."""
    # everything that the metadata need is copied or immutable: the slot changes meanwhile
    losses = [*slot.val_losses, val_loss]
    metadata = partial(_metadata, slot.trial_id, slot.spec, slot.step, losses)
    return Snapshot(stack.begin_snapshot(row), metadata, stack.bytes_of(row))


def _metadata(
    trial_id: str, spec: TrialSpec, step: int, losses: Sequence[float]
) -> Mapping[str, Any]:
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
    **metrics: float | None,
) -> Report:
    h = slot.spec.hyperparameters
    is_plain = not (h.label_smoothing or h.z_loss)
    return Report(
        trial_id=slot.trial_id,
        status=status,
        step=slot.step,
        tokens=slot.step * slot.spec.tokens_per_step,
        val_loss=val_loss,
        train_loss=slot.plain_sum / slot.loss_weight,
        grad_norm=slot.norm_sum / max(1, slot.norm_count),
        learning_rate=slot.learning_rate(slot.step),
        checkpoint=None if path is None else str(path),
        problem=slot.problem,
        train_objective=None if is_plain else slot.loss_sum / slot.loss_weight,
        **metrics,
    )
