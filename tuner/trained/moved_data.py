"""Finds the data and the tokenizer of a recorded search that were moved along with its home.

A record has absolute paths. The fingerprints in the record prove that a file found is the right
one, so that a wrong guess does no harm.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from model.errors import CorpusError
from model.sources.fingerprint import Fingerprint, fingerprint
from model.spec.data import DataConfig
from tuner.home.home import Home
from tuner.space.remarks import with_model
from tuner.space.space import SearchSpace


def find_data(data: DataConfig, digest: str, home: Home) -> tuple[DataConfig, Fingerprint]:
    """Return the data with a fingerprint: where they are recorded, or where they moved to.

    Args:
        data: recorded configuration.
        digest: recorded fingerprint.
        home: home of the search.

    Returns:
        The configuration that names data of this fingerprint, and their fingerprint. If no data
        have it: the configuration of the data that are found, and theirs.

    Raises:
        CorpusError: if no data are found, or they cannot be read.
    """
    first, problem = None, None
    for config in dict.fromkeys([data, moved_data(data, home)]):
        try:
            found = fingerprint(config)  # reads all files: file times prove nothing
        except CorpusError as error:
            problem = problem or error
            continue
        if found.digest == digest:
            return config, found
        first = first or (config, found)
    if first is None:
        assert problem is not None
        raise problem
    return first


def present_space(space: SearchSpace, home: Home) -> SearchSpace:
    """Return a recorded space with the paths at which its data and its tokenizer are now."""
    data, tokenizer = space.data, space.tokenizer
    if not all(map(_exists, _paths(data))):
        data = moved_data(data, home)
    if tokenizer.file is not None and not _exists(tokenizer.file):
        file = _moved(tokenizer.file, home) or tokenizer.file
        tokenizer = tokenizer.model_copy(update={"file": file})
    return space.model_copy(update={"data": data, "tokenizer": tokenizer})


def with_recorded_paths(space: SearchSpace, recorded: SearchSpace, home: Home) -> SearchSpace:
    """Return an edited space with the recorded paths where the present ones lead to the same."""
    present = present_space(recorded, home)
    parts = {
        name: getattr(recorded, name)
        for name in ("data", "tokenizer")
        if getattr(space, name) == getattr(present, name)
    }
    return space.model_copy(update=parts)


def as_recorded(space: SearchSpace, recorded: SearchSpace, home: Home) -> SearchSpace:
    """Return an edited space with what its search has found for the recorded one.

    Paths as `with_recorded_paths`. And the recorded space has the tokenizer of its warm start
    already, and the architecture of a pretrained one; the edited file names only the warm start.
    """
    space = with_recorded_paths(space, recorded, home)
    if space.init_from is None or space.init_from != recorded.init_from:
        return space
    if space.init_from.huggingface is not None:
        space = with_model(space, {**recorded.model, **space.model})
    parts: dict[str, Any] = {"tokenizer": recorded.tokenizer}
    if space.data.examples and space.data.chat is None:  # the source's, too
        parts["data"] = space.data.model_copy(update={"chat": recorded.data.chat})
    return space.model_copy(update=parts)


def moved_data(data: DataConfig, home: Home) -> DataConfig:
    """Return a configuration with the paths that its files have beside the home, if all are there.

    A path is found beside the home if its end leads from the folder of the home, or from a folder
    above it, to a file: `/old/place/texts` is found at `/new/place/texts` for `/new/place/runs`.
    """
    moved = [_moved(path, home) for path in _paths(data)]
    found = tuple(path for path in moved if path is not None)
    if not found or len(found) < len(moved):
        return data
    places = dict(zip(_paths(data), found, strict=True))
    update: dict[str, Any] = {name: places[path] for name, path in _single_paths(data).items()}
    if data.files:
        update["files"] = tuple(places[path] for path in data.files)
    return data.model_copy(update=update)


def _paths(data: DataConfig) -> tuple[str, ...]:
    """Return the files, folders and patterns of a configuration."""
    return (*_single_paths(data).values(), *(data.files or ()))


def _single_paths(data: DataConfig) -> dict[str, str]:
    """Return the entries of a configuration that are one path."""
    named = {"multiple_choice": data.multiple_choice}
    if data.hub is not None and Path(data.hub).is_absolute():
        named["hub"] = data.hub
    return {name: path for name, path in named.items() if path is not None}


def _exists(pattern: str) -> bool:
    return Path(pattern).exists() or bool(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns


def _moved(path: str, home: Home) -> str | None:
    """Return where a file, folder or pattern is beside a home; the longest end of it counts."""
    parts = Path(path).parts[1:]
    for first in range(len(parts)):
        for folder in (home.root, *home.root.parents[:-1]):
            place = str(folder.joinpath(*parts[first:]))
            if place != path and _exists(place):
                return place
    return None
