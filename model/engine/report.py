"""What a trial says at a report point. Imports nothing heavy: it travels through Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# The curves: what MLflow records and what a replay compares, in this order.
METRICS = ("val_loss", "train_loss", "perplexity", "learning_rate", "grad_norm", "tokens")
# Those that only some trials have.
SOME_METRICS = ("sparsity", "token_accuracy", "bleu")
_NUMBERS = ("val_loss", "train_loss", "learning_rate", "grad_norm")  # that may be NaN


class Status(StrEnum):
    """Where a trial stands at a report."""

    TRAINING = "training"  # goes on unless it is stopped
    FINISHED = "finished"  # its budget is used up
    DIVERGED = "diverged"  # a loss or a gradient was not finite; it is frozen


@dataclass(frozen=True)
class Report:
    """One report of one trial.

    Attributes:
        trial_id: the name given when it was admitted.
        status: where it stands.
        step: updates done; of a diverged trial, the update that was not finite.
        tokens: training tokens seen.
        val_loss: nats per token on the validation sequences; NaN if diverged.
        train_loss: mean training loss since the last report, nats per token.
        grad_norm: mean global gradient norm before clipping since the last report.
        learning_rate: α_t of the last update.
        checkpoint: path of the state at this report, if one was saved.
        problem: what the user should know of the machine, as that the state could not be saved;
            no fault of the trial, whose numbers it leaves alone.
        sparsity: share of the matrices that is zero; None if the trial does not prune.
        token_accuracy: share of the validation targets that were the most probable token; None
            without an encoder.
        bleu: of what an encoder–decoder writes for the validation sources, in [0, 100]; None before
            the last report.
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

    @classmethod
    def of(cls, trial_id: str, fields: Mapping[str, Any]) -> Report:
        """A report made from the fields of another trial's, as JSON has them: NaN may be null."""
        numbers = {name: math.nan if fields[name] is None else fields[name] for name in _NUMBERS}
        status = Status(fields["status"])
        return cls(**{**fields, **numbers, "trial_id": trial_id, "status": status})

    @property
    def perplexity(self) -> float:
        """exp(val_loss), capped where a double ends."""
        return math.exp(min(self.val_loss, 700.0))

    def metrics(self) -> dict[str, float]:
        """The curves by name: all of METRICS, and those of SOME_METRICS that the trial has."""
        values = {name: getattr(self, name) for name in (*METRICS, *SOME_METRICS)}
        return {name: float(value) for name, value in values.items() if value is not None}
