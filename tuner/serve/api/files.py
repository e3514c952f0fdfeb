"""Files of a search for download; their names are chosen from a list, never a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fastapi import Response
from fastapi.responses import FileResponse

from tuner.errors import JournalError, RecordError
from tuner.home.home import Home, open_file
from tuner.journal.journal import JOURNAL_FILE
from tuner.serve.records import QueuedSearch
from tuner.serve.views import FileView
from tuner.texts.formatting import shown

_SPACE, _LOG = "space.yaml", "log.txt"
_CHECKPOINTS = ("checkpoints", "kept")
_SUFFIX = ".safetensors"


def files_of(home: Home, name: str, entry: QueuedSearch | None) -> list[FileView]:
    """Return the files of a search."""
    files = [FileView(name=file, bytes=path.stat().st_size) for file, path in _paths(home, name)]
    if entry is not None and entry.space_text:
        files.append(FileView(name=_SPACE, bytes=len(entry.space_text.encode())))
    return files


def file_of(home: Home, name: str, entry: QueuedSearch | None, file: str) -> Response:
    """Return a file of a search.

    Raises:
        RecordError: if the search has none of this name.
    """
    if file == _SPACE and entry is not None and entry.space_text:
        return Response(entry.space_text, media_type="application/octet-stream")
    path = dict(_paths(home, name)).get(file)
    if path is None:
        raise RecordError(f"{name} has no file {shown(file)}")
    return FileResponse(path, filename=f"{name}-{file}", media_type="application/octet-stream")


def _paths(home: Home, name: str) -> Iterator[tuple[str, Path]]:
    """Yield the names and paths of the files of a search that are regular files."""
    folder = home.search(name)
    paths = [(JOURNAL_FILE, folder / JOURNAL_FILE), (_LOG, home.log(name))]
    for checkpoints in _CHECKPOINTS:
        for path in sorted((folder / checkpoints).rglob(f"*{_SUFFIX}")):
            paths.append((path.relative_to(folder).as_posix().replace("/", "."), path))
    for file, path in paths:
        with suppress(OSError, JournalError):
            os.close(open_file(path, os.O_RDONLY))
            yield file, path
