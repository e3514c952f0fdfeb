"""Requests to edit a search: files in its folder, `edits/TIME-PID.json`, each a line of a journal.

Whoever asks writes the event that the journal shall get. The driver of the search takes it while it
runs, or else the next one when it starts; then the file goes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from model.files import read_regular, replacing
from tuner.errors import JournalError, TunerError
from tuner.journal.edit import changes, check_edit, needs_new_session
from tuner.journal.events import SearchEdited
from tuner.journal.lines import line_of, parse_lines
from tuner.space.space import SearchSpace
from tuner.texts.formatting import listed

_FOLDER, _SUFFIX = "edits", ".json"
_MOST_BYTES = 1 << 24  # of a request


def request_edit(folder: Path, space: SearchSpace, space_text: str) -> Path:
    """Ask the driver of a search, or the next one, to go on with another space.

    Args:
        folder: folder of the search.
        space: the other space, which `check_edit` allows.
        space_text: text of its file.

    Returns:
        Path of the request, which goes when it is taken or refused.

    Raises:
        OSError: if it cannot be written.
    """
    path = folder / _FOLDER / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    with replacing(path, durable=True) as file:
        file.write(line_of(SearchEdited(space, space_text), "")[0])
    return path


def edit_requests(folder: Path) -> list[Path]:
    """Return the requests that wait for a driver of a search, the oldest first."""
    parent = folder / _FOLDER
    if parent.is_symlink():  # in the home of somebody else
        return []
    with suppress(OSError):  # files of other names are half written
        return sorted(path for path in parent.iterdir() if path.suffix == _SUFFIX)
    return []


class EditRequests:
    """Takes the requests to edit a search, in its driver.

    Args:
        folder: folder of the search.
        say: function to call with news for the user.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._over: set[Path] = set()  # also where the driver may not remove them

    def take(self, space: SearchSpace, *, is_live: bool) -> Iterator[SearchEdited]:
        """Yield the edits that are allowed; a request goes when the caller asks for the next one.

        Args:
            space: space of the search.
            is_live: True for a session that runs, which leaves what it cannot do to the next one.
        """
        for path in edit_requests(self._folder):
            if path in self._over:
                continue
            try:
                event = _read(path)
                check_edit(space, event.space, self._folder.name)
            except (TunerError, OSError) as error:
                self._say(f"an edit is refused: {error}")
            else:
                if is_live and needs_new_session(space, event.space):
                    continue
                if edits := changes(space, event.space):
                    self._say(f"the search goes on with another {listed(edits, 'and')}")
                    yield replace(event, is_live=is_live)
                    space = event.space
            self._over.add(path)
            with suppress(OSError):
                path.unlink()


def _read(path: Path) -> SearchEdited:
    entries, _ = parse_lines(path, read_regular(path, _MOST_BYTES))
    if len(entries) != 1 or not isinstance(event := entries[0].event, SearchEdited):
        raise JournalError(f"{path} is no edit of a search")
    return event
