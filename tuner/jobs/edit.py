"""Gives a search that another process runs another space, while it runs."""

from __future__ import annotations

import time
from pathlib import Path

from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import no_search
from tuner.journal.edit import check_edit
from tuner.journal.edit_request import request_edit
from tuner.journal.events import SearchEdited
from tuner.journal.fold import Search
from tuner.journal.journal import JournalTail
from tuner.lease.folder import is_running
from tuner.space.space import SearchSpace

_PATIENCE_SECONDS = 600.0  # a driver that starts looks only when its workers train
_POLL_SECONDS = 0.1


class EditRequest:
    """A request to a driver, or to the next one, to go on with another space.

    Args:
        name: name of the search.
        home: home of the search.
        space: the other space, as its driver would have it (`as_recorded`).
        space_text: text of its file.

    Raises:
        TunerError: if the home has no such search, it has not begun, it may not be edited so, or
            the request cannot be written.
    """

    def __init__(self, name: str, home: Home, space: SearchSpace, space_text: str) -> None:
        folder = home.search(name)
        if not folder.is_dir():
            raise no_search(name, home)
        self.name, self._space, self._folder = name, space, folder
        self._tail, self._is_taken = JournalTail(folder), False
        events = [entry.event for entry in self._tail.read()]
        check_edit(Search.of_name(events, name).space, space, name)
        try:
            self._path: Path = request_edit(folder, space, space_text)
        except OSError as error:
            raise TunerError(
                f"cannot ask the driver of {name}: {error.strerror}: {error.filename}; you must be "
                f"able to write to {folder}"
            ) from error

    @property
    def is_running(self) -> bool:
        """True if a driver has the search."""
        return is_running(self._folder)

    def wait(self, seconds: float = _PATIENCE_SECONDS) -> bool:
        """Wait until the driver has taken the edit; return False if it has not in time.

        Nor if no driver runs the search: then the next one takes it, if it is not withdrawn.

        Raises:
            TunerError: if the driver has refused it.
        """
        until = time.monotonic() + seconds
        while True:
            is_on, is_there = self.is_running, self._path.exists()
            if self._has_come():
                return True
            if not is_there:
                raise self._refusal()
            if not is_on or time.monotonic() > until:
                return False
            time.sleep(_POLL_SECONDS)

    def withdraw(self) -> None:
        """Take the request back, unless a driver has taken it."""
        self._path.unlink(missing_ok=True)

    def _has_come(self) -> bool:
        """Return True if the journal has the edit."""
        self._is_taken |= any(
            isinstance(entry.event, SearchEdited) and entry.event.space == self._space
            for entry in self._tail.read()
        )
        return self._is_taken

    def _refusal(self) -> TunerError:
        """Return why a driver has refused the edit: another one came before it."""
        events = [entry.event for entry in JournalTail(self._folder).read()]
        try:
            check_edit(Search.of_name(events, self.name).space, self._space, self.name)
        except TunerError as error:
            return error
        return TunerError(
            f"the driver of {self.name} has not taken the edit; 'tuner attach {self.name}' or "
            f"'tuner logs {self.name}' says why"
        )
