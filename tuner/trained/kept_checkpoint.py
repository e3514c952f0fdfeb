"""Kept checkpoints of recorded trials, compared with the digests in the journals."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from model.checkpoints.header import recorded_digest
from model.errors import CheckpointError
from tuner.errors import RecordError
from tuner.texts.formatting import short_hash, short_run
from tuner.tracking.tags import CHECKPOINT_FILE
from tuner.trained.recorded_trials import RecordedTrial, RecordedTrials


def kept_checkpoint(trials: RecordedTrials, trial: RecordedTrial, folder: str) -> Path | None:
    """Download the kept checkpoint of a trial, or of an equal finished trial.

    Args:
        trials: trials of the store.
        trial: the trial.
        folder: folder for the file.

    Returns:
        The file; None if no checkpoint is kept.

    Raises:
        RecordError: if the file is not the one that was kept, by the journal of its search.
        StoreError: if the tracking store cannot be used.
    """
    candidates: Iterable[RecordedTrial] = [trial]
    if trial.record.status == "finished":
        equal = trials.finished(trial.spec.hash, trial.record.environment)
        candidates = chain(candidates, equal)
    for candidate in candidates:
        if candidate.record.keeps_checkpoint:
            path = trials.record.download(candidate.record.run_id, CHECKPOINT_FILE, folder)
            if path is not None:
                _check_digest(candidate, path)
                return path
    return None


def _check_digest(trial: RecordedTrial, path: Path) -> None:
    """Compare a checkpoint with the journal."""
    record, expected = trial.record, trial.journaled.weights
    if expected is None:
        return
    try:
        digest = recorded_digest(path)
    except CheckpointError:
        return  # whoever reads the file says so
    if digest != expected:
        raise RecordError(
            f"the recorded weights of trial {record.number} of {record.search} are not those that "
            f"the search kept: their digest is {short_hash(digest)}…, and its journal has "
            f"{short_hash(expected)}…; delete {CHECKPOINT_FILE} of the run "
            f"{short_run(record.run_id)}, and the trial is trained again"
        )
