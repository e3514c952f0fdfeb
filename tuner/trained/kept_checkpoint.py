"""Kept checkpoints of recorded trials, compared with the digests in the journals."""

from __future__ import annotations

from pathlib import Path

from model.checkpoints.header import recorded_digest
from model.errors import CheckpointError
from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.texts.formatting import short_hash, short_run
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import CHECKPOINT_FILE
from tuner.trained.recorded_journal import recorded_search


def kept_checkpoint(record: Record, trial: TrialRecord, home: Home, folder: str) -> Path | None:
    """Download the kept checkpoint of a trial, or of an equal finished trial.

    Args:
        record: the store.
        trial: the trial.
        home: home of the searches.
        folder: folder for the file.

    Returns:
        The file; None if no checkpoint is kept.

    Raises:
        RecordError: if the file is not the one that was kept, by the journal of its search.
        JournalError: if that journal is damaged, or is not the recorded one.
        StoreError: if the tracking store cannot be used.
    """
    trials = [trial]
    if trial.status == "finished":
        trials += [
            other
            for other in record.equal(trial.spec_hash)
            if other.status == "finished" and other.environment == trial.environment
        ]
    for candidate in trials:
        if candidate.keeps_checkpoint:
            path = record.download(candidate.run_id, CHECKPOINT_FILE, folder)
            if path is not None:
                _check_digest(record, candidate, home, path)
                return path
    return None


def _check_digest(record: Record, trial: TrialRecord, home: Home, path: Path) -> None:
    """Compare a checkpoint with the journal."""
    search = recorded_search(record, record.search(trial.search), home)
    journaled = search.trials.get(trial.number)
    expected = journaled.weights if journaled else None
    if expected is None:
        return
    try:
        digest = recorded_digest(path)
    except CheckpointError:
        return  # whoever reads the file says so
    if digest != expected:
        raise RecordError(
            f"the recorded weights of trial {trial.number} of {trial.search} are not those that "
            f"the search kept: their digest is {short_hash(digest)}…, and its journal has "
            f"{short_hash(expected)}…; delete {CHECKPOINT_FILE} of the run "
            f"{short_run(trial.run_id)}, and the trial is trained again"
        )
