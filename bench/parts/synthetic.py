"""Specification of a trial on synthetic tokens, for timing training without a search."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.trial import TrialSpec


def trial(
    a: Architecture,
    seed: int,
    rows: Mapping[str, float | int | str],
    sequences: tuple[int, int],
    *,
    reports: int = 1,
    ticks: int = 1,
) -> TrialSpec:
    """Return a trial on tokens that nobody prepared.

    Args:
        a: architecture of the trial.
        seed: seed of the trial.
        rows: hyperparameters by name, `batch_size` and `total_steps` among them.
        sequences: number of training sequences, and of sequences that each report evaluates.
        reports: number of reports, the last one at the end.
        ticks: number of ticks of an update; it divides the batch.
    """
    h = derive(rows, train_sequences=sequences[0], context_length=a.context_length)
    return TrialSpec(
        hyperparameters=h,
        architecture=a,
        data=DataConfig(files=("made-up",)),
        tokenizer=TokenizerConfig(vocab_size=a.vocab_size),
        data_fingerprint="made-up",
        tokenizer_fingerprint="made-up",
        train_sequences=sequences[0],
        validation_sequences=sequences[1],
        micro_batch=h.batch_size // ticks,
        report_tokens=-(-h.total_steps // reports) * h.batch_size * a.context_length,
        seed=seed,
    )
