"""Report of a trial at a report point. Imports nothing heavy: reports travel through Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Names of the curves, in the order in which MLflow records them and a replay compares them.
METRICS = ("val_loss", "train_loss", "perplexity", "learning_rate", "grad_norm", "tokens")
# Those of LoRA trials; records of earlier versions lack them.
ADAPTER_METRICS = ("adapter_norm", "effective_update")
# Names of the curves that only some trials have.
SOME_METRICS = (
    "sparsity",
    "token_accuracy",
    "bleu",
    "train_objective",
    "exact_match",
    "acc",
    "acc_norm",
    *ADAPTER_METRICS,
)
_CURVES = (*METRICS, *SOME_METRICS)
_MAY_BE_NAN = ("val_loss", "train_loss", "learning_rate", "grad_norm")


class Status(StrEnum):
    """Status of a trial at a report."""

    TRAINING = "training"  # continues unless it is stopped
    FINISHED = "finished"  # has used its budget
    DIVERGED = "diverged"  # a loss or a gradient was not finite; the trial trains no further


@dataclass(frozen=True, slots=True)
class Report:
    """One report of one trial.

    Attributes:
        trial_id: id under which the trial was added to the engine.
        status: status of the trial.
        step: updates done; of a diverged trial, the update that was not finite.
        tokens: training tokens seen.
        val_loss: nats per token on the validation sequences; NaN if diverged.
        train_loss: mean cross-entropy of the training tokens since the last report, with dropout
            and noise, in nats per token. Versions before `train_objective` recorded that instead.
        grad_norm: mean global gradient norm before clipping since the last report.
        learning_rate: α_t of the last update.
        checkpoint: path of the checkpoint of this report; None if none was saved.
        sparsity: share of the matrices that is zero; None if the trial does not prune.
        token_accuracy: share of the validation targets that were the most probable token; None
            without pairs or examples.
        bleu: BLEU of an encoder–decoder's translations of the validation sources, in [0, 100];
            None before the last report.
        problem: problem of the machine that the user should know, such as a checkpoint that could
            not be saved. The trial did not cause it, and its numbers are unaffected.
        train_objective: mean of the differentiated loss since the last report: cross-entropy with
            label smoothing and z-loss; None if the trial has neither.
        exact_match: share of the answers of validation examples that greedy decoding writes
            exactly, with the token at their end; None without examples, or if all their tokens are
            learned.
        acc: share of the questions of `data.multiple_choice` whose right choice is the most
            probable one; None without questions.
        acc_norm: that share if the logarithms of probabilities are divided by the characters of
            the choices.
        adapter_norm: Euclidean norm of all of LoRA's matrices A and B; None without LoRA.
        effective_update: norm of LoRA's change s·B·A of the matrices, as a share of the norm of
            these frozen matrices.
    """

    trial_id: str
    status: Status
    step: int
    tokens: int
    val_loss: float
    train_loss: float
    grad_norm: float
    learning_rate: float
    checkpoint: str | None = None
    sparsity: float | None = None
    token_accuracy: float | None = None
    bleu: float | None = None
    problem: str | None = None
    train_objective: float | None = None
    exact_match: float | None = None
    acc: float | None = None
    acc_norm: float | None = None
    adapter_norm: float | None = None
    effective_update: float | None = None

    @classmethod
    def of(cls, trial_id: str, fields: Mapping[str, Any]) -> Report:
        """Return a report of a trial, made from JSON fields of another report.

        Args:
            trial_id: id of the trial.
            fields: fields of a report, as JSON has them: NaN may be null.
        """
        numbers = {name: math.nan if fields[name] is None else fields[name] for name in _MAY_BE_NAN}
        status = Status(fields["status"])
        return cls(**{**fields, **numbers, "trial_id": trial_id, "status": status})

    @property
    def perplexity(self) -> float:
        """Perplexity exp(val_loss), capped below the largest double."""
        return math.exp(min(self.val_loss, 700.0))

    def metrics(self) -> dict[str, float]:
        """Return the values of all METRICS, and of those SOME_METRICS that the trial has."""
        values = {name: self.metric(name) for name in _CURVES}
        return {name: value for name, value in values.items() if value is not None}

    def metric(self, name: str) -> float | None:
        """Return the value of a curve; None if there is none of this name, or without a value."""
        value = getattr(self, name) if name in _CURVES else None
        return None if value is None else float(value)
