"""A trial on made-up tokens, for benches that time training without a search."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.trial import TrialSpec


def trial(
    a: Architecture, seed: int, rows: Mapping[str, float | int], sequences: tuple[int, int]
) -> TrialSpec:
    """A trial that reports once, at its end, and whose updates are of one tick.

    Args:
        a: its architecture.
        seed: its key.
        rows: of the symbol table, `batch_size` and `total_steps` among them.
        sequences: of the training data, and those that the report reads.
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
        micro_batch=h.batch_size,
        report_tokens=h.total_steps * h.batch_size * a.context_length,
        seed=seed,
    )
