"""Artifacts of recorded searches: tokenizers and warm starts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.checkpoints.warm_start import read_start, start_path, write_start
from model.errors import CheckpointError
from model.exchange.pretrained import Pretrained
from model.spec.data import TokenizerConfig
from model.spec.trial import InitFrom
from model.tokenizer import formats as tokenizer_files
from model.tokenizer.load import load_tokenizer
from tuner.errors import RecordError, StoreError
from tuner.home.home import Home
from tuner.home.private_folder import lasting_folder
from tuner.storage.states import TOKENIZER_FILE
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import START_FOLDER, Tag

if TYPE_CHECKING:
    from torch import Tensor


def recorded_tokenizer(
    record: Record, search: SearchRecord, fingerprint: str, home: Home
) -> TokenizerConfig:
    """Copy the recorded tokenizer of a search to the home, and return its configuration.

    Raises:
        RecordError: if no tokenizer is recorded, or its fingerprint differs.
    """
    with TemporaryDirectory() as folder:
        path = record.download(search.run_id, TOKENIZER_FILE, folder)
        if path is None:
            raise RecordError(
                f"the record of {search.name} has no {TOKENIZER_FILE}, without which its weights "
                f"cannot be used; run the search again"
            )
        name = f"{fingerprint}.{TOKENIZER_FILE}"
        copy = _copied(path.read_bytes().decode("utf-8"), name, home)
    config = TokenizerConfig(file=str(copy))
    tokenizer = load_tokenizer(config)
    if tokenizer is None or tokenizer.fingerprint != fingerprint:
        raise RecordError(
            f"the {TOKENIZER_FILE} recorded with {search.name} is not the tokenizer that it was "
            f"trained with; restore the original file"
        )
    return config


def _copied(text: str, name: str, home: Home) -> Path:
    """Return a copy of a file in the home, or in a temporary folder if the home is read-only."""
    with suppress(OSError):
        if (home.starts / name).read_bytes() == text.encode():
            return home.starts / name
    try:
        (copy,) = tokenizer_files.write(home.starts, {name: text})
    except OSError:
        (copy,) = tokenizer_files.write(lasting_folder(), {name: text})
    return copy


def bring_start(record: Record, search: SearchRecord, init_from: InitFrom, home: Home) -> None:
    """Copy the warm start of a recorded search to the home, unless the home has it.

    Raises:
        RecordError: if neither the home nor the record has it.
        StoreError: if the home cannot be written.
    """
    try:
        read_start(home.starts, init_from)
    except CheckpointError:
        path, source = start_path(home.starts, init_from), search.tags.get(Tag.INIT_FROM, "")
        with TemporaryDirectory() as folder:
            copy = record.download(search.run_id, f"{START_FOLDER}/{path.name}", folder)
            if copy is not None:
                try:
                    tensors = read_start(copy.parent, init_from)
                except CheckpointError as error:
                    raise RecordError(recorded_problem(search, copy, error)) from error
            elif (imported := _imported(source, init_from)) is not None:
                tensors = imported
            else:
                raise RecordError(
                    f"the weights of {source}, from which the trial "
                    f"started, are gone from the record of {search.name}; put a copy of them at "
                    f"{path} to replay"
                ) from None
        try:
            write_start(home.starts, init_from, tensors)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _imported(folder: str, init_from: InitFrom) -> dict[str, Tensor] | None:
    """Return the weights of a pretrained model's folder; None if they are not those of a start."""
    try:
        start, tensors = Pretrained.open(folder).start()
    except (CheckpointError, OSError):
        return None
    return tensors if start.sha256 == init_from.sha256 else None


def recorded_problem(search: SearchRecord, path: Path, error: CheckpointError) -> str:
    """Return the message about a damaged recorded file, without the path of our temporary copy."""
    return f"in the record of {search.name}, {str(error).replace(str(path), path.name)}"
