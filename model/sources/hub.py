"""Data sets of the Hugging Face hub, or of a folder, as streams of documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from model.errors import CorpusError
from model.sources import documents
from model.sources.documents import Document
from model.sources.files import SourceFile
from model.sources.hub_folder import check_builder, check_paths, folder_files
from model.sources.limits import too_long
from model.sources.streams import no_column
from model.spec.data import DataConfig

EXAMPLES = {"TinyStories": "roneneldan/TinyStories", "OpenWebText": "Skylion007/openwebtext"}

# A hub that does not answer for so long counts as unreachable.
_TIMEOUT_SECONDS = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_documents(config: DataConfig) -> Iterator[Document]:
    """Yield the rows of a data set that have a text.

    Raises:
        CorpusError: if `datasets` is not installed, the hub cannot be reached, or the data set
            has no such configuration, split or column.
    """
    is_empty = True
    for document in documents.documents_of_rows(config.split, _rows(config)):
        is_empty = False
        yield document
    if is_empty:
        raise CorpusError(
            f"data.hub: {config.hub} is empty: no row of {config.split} has text in its column "
            f"{config.column!r}; set data.column or data.split"
        )


def hub_name(config: DataConfig) -> str:
    """Return the full name of the data set."""
    assert config.hub
    return EXAMPLES.get(config.hub, config.hub)


def local_files(config: DataConfig) -> list[SourceFile] | None:
    """Return the files of a data set that is a folder; None if the data set is on the hub.

    Raises:
        CorpusError: if a file of the folder links to something outside of it.
    """
    root = Path(hub_name(config))
    return folder_files(root) if root.is_dir() else None


def commit(config: DataConfig) -> str:
    """Return the commit of a data set of the hub: that of `config.revision`, or the newest.

    Raises:
        CorpusError: if the hub cannot be reached or has no such data set or revision.
    """
    if config.revision and _COMMIT.fullmatch(config.revision):
        return config.revision
    return _resolve(hub_name(config), config.revision)


@cache  # so that this process reads the commit that it fingerprinted
def _resolve(name: str, revision: str | None) -> str:
    """Ask the hub for the commit of a revision."""
    _import_datasets(name)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return str(HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT_SECONDS).sha)
    except GatedRepoError as error:
        raise CorpusError(
            f"data.hub: {name} is gated; accept its terms on huggingface.co and log in with 'hf "
            f"auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise CorpusError(
            f"data.hub: {name} has no revision {revision}; correct data.revision"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CorpusError(
            f"data.hub: there is no data set {name} on the hub, nor a folder of that name; check "
            f"the name, or log in with 'hf auth login' if it is private"
        ) from error
    except Exception as error:  # the error depends on the library's HTTP client
        raise CorpusError(
            f"data.hub: cannot reach the Hugging Face hub for {name} ({_first_line(error)}); "
            f"connect to the network, or give files: or a folder instead; with data.revision "
            f"pinned to a commit, data that are prepared already need no network"
        ) from error


def _import_datasets(name: str) -> ModuleType:
    try:
        datasets = import_module("datasets")  # an optional dependency
    except ImportError as error:
        raise CorpusError(
            f"data.hub: {name} is read with the package 'datasets', which is not installed; run "
            f"'pip install datasets'"
        ) from error
    return datasets


def _rows(config: DataConfig) -> Iterator[tuple[int, str]]:
    name, column = hub_name(config), config.column
    where = f"data.hub: {name}"
    rows = _stream(config)
    number = 0
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # every file format has its own errors
            raise CorpusError(
                f"{where} cannot be read at row {number:,} of {config.split} "
                f"({_first_line(error)}); check the data set and the network"
            ) from error
        if row is None:
            return
        if column not in row:
            raise no_column(where, column, row)
        text = row[column]
        if text is not None:
            if not isinstance(text, str):
                raise CorpusError(
                    f"{where}: column {column!r} is not text but {type(text).__name__}; set "
                    f"data.column"
                )
            if len(text) > config.longest_row:
                raise too_long(f"{where}: row {number + 1}", config.longest_row)
            yield number, text
        number += 1


def _stream(config: DataConfig) -> Iterator[dict[str, Any]]:
    name = hub_name(config)
    datasets = _import_datasets(name)
    datasets.disable_progress_bars()
    is_local = Path(name).is_dir()
    # The hub is asked first even if the commit is known: this fails within seconds if the hub is
    # unreachable, while loading would retry for half a minute.
    revision = None if is_local else _resolve(name, commit(config))
    try:
        if is_local and Path(name, "state.json").is_file():  # written by save_to_disk
            saved = datasets.load_from_disk(name)
            check_paths(Path(name), (str(Path(f["filename"]).resolve()) for f in saved.cache_files))
            return iter(_text_only(saved.to_iterable_dataset(), config))
        if is_local:
            check_builder(Path(name), datasets.load_dataset_builder(name, config.hub_config))
        rows = datasets.load_dataset(
            name, config.hub_config, split=config.split, revision=revision, streaming=True
        )
        return iter(_text_only(rows, config))
    except CorpusError:
        raise
    except Exception as error:  # loaders raise the errors of their file formats
        raise CorpusError(
            f"data.hub: {name} cannot be loaded ({_first_line(error)}); check data.hub, hub_config "
            f"and split"
        ) from error


def _text_only(rows: Any, config: DataConfig) -> Any:
    """Leave out all columns but the text: those of images or sounds would open files."""
    features = getattr(rows, "features", None)
    if not features or config.column not in features:
        return rows
    kind = type(features[config.column]).__name__
    if kind not in ("Value", "Json"):  # Json: texts among other values
        raise CorpusError(
            f"data.hub: {hub_name(config)}: column {config.column!r} is not text but {kind}; set "
            f"data.column"
        )
    return rows.select_columns([config.column])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
