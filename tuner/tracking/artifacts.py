"""Artifacts of recorded trials: kept checkpoints, tokenizers and warm starts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from model.checkpoints.warm_start import read_start, start_path, write_start
from model.errors import CheckpointError
from model.spec.data import TokenizerConfig
from model.spec.trial import InitFrom
from model.tokenizer import formats as tokenizer_files
from model.tokenizer.load import load_tokenizer
from tuner.errors import RecordError
from tuner.home import Home
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.tracking.tags import START_FOLDER, STATE_FILE, TOKENIZER_FILE, Tag


def kept_state(record: Record, trial: TrialRecord, folder: str) -> Path | None:
    """The recorded state of a trial, or of an equal one that was trained to its end.

    Args:
        record: the store.
        trial: whose.
        folder: where the file goes.

    Returns:
        None if none is kept.
    """
    trials = [trial]
    if trial.status == "finished":
        trials += [
            other
            for other in record.equal(trial.spec_hash)
            if other.status == "finished" and other.environment == trial.environment
        ]
    kept = [one.run_id for one in trials if one.keeps_state]
    found = (record.download(run, STATE_FILE, folder) for run in kept)
    return next((path for path in found if path is not None), None)


def recorded_tokenizer(
    record: Record, search: SearchRecord, fingerprint: str, home: Home
) -> TokenizerConfig:
    """The tokenizer that is recorded with a search, as a file of the home.

    Raises:
        RecordError: if it is not, or is not the one of a fingerprint.
    """
    with TemporaryDirectory() as folder:
        path = record.download(search.run_id, TOKENIZER_FILE, folder)
        if path is None:
            raise RecordError(
                f"the record of {search.name} holds no {TOKENIZER_FILE}, without which its "
                f"weights mean nothing; run the search again"
            )
        name = f"{fingerprint}.{TOKENIZER_FILE}"
        (kept,) = tokenizer_files.write(home.starts, {name: path.read_text(encoding="utf-8")})
    config = TokenizerConfig(file=str(kept))
    tokenizer = load_tokenizer(config)
    if tokenizer is None or tokenizer.fingerprint != fingerprint:
        raise RecordError(
            f"the {TOKENIZER_FILE} recorded with {search.name} is not the one that it was trained "
            f"with; bring that back"
        )
    return config


def bring_start(record: Record, search: SearchRecord, init_from: InitFrom, home: Home) -> None:
    """Make sure that the home holds what a recorded trial started with.

    Raises:
        RecordError: if it is neither in the home nor in the record.
    """
    try:
        read_start(home.starts, init_from)
    except CheckpointError:
        path = start_path(home.starts, init_from)
        with TemporaryDirectory() as folder:
            found = record.download(search.run_id, f"{START_FOLDER}/{path.name}", folder)
            if found is None:
                raise RecordError(
                    f"the weights of {search.tags.get(Tag.INIT_FROM)}, from which the trial "
                    f"started, are gone from the record of {search.name}; put a copy of them at "
                    f"{path} to replay"
                ) from None
            try:
                tensors = read_start(found.parent, init_from)
            except CheckpointError as error:
                raise RecordError(_recorded(search, found, error)) from error
        write_start(home.starts, init_from, tensors)


def _recorded(search: SearchRecord, path: Path, error: CheckpointError) -> str:
    """What is wrong with a file of the record, of which the user knows no copy."""
    return f"in the record of {search.name}, {str(error).replace(str(path), path.name)}"
