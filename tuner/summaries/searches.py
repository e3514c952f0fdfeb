"""The recorded searches of a home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.journal.journal import JOURNAL_FILE
from tuner.lease.folder import is_running
from tuner.tracking.metrics import with_counts
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord


@dataclass(frozen=True)
class RecordedSearches:
    """The searches of a store, the newest first.

    Attributes:
        searches: searches with their present status.
        killed: names of the searches whose driver was killed.
    """

    searches: tuple[SearchRecord, ...]
    killed: tuple[str, ...]

    @classmethod
    def of(cls, record: Record, home: Home) -> RecordedSearches:
        """Read the searches of a store.

        Args:
            record: the store.
            home: home of the journals, which say whether a driver was killed.
        """
        recorded = record.searches()
        searches = tuple(current(search, home) for search in recorded)
        pairs = zip(searches, recorded, strict=True)
        return cls(searches, tuple(search.name for search, before in pairs if search != before))

    @property
    def as_json(self) -> Mapping[str, Any]:
        """The object of `tuner list --json`."""
        return {
            "searches": [
                {"name": s.name, "run": s.run_id, "status": s.status, "started": s.started}
                | with_counts(s.metrics)
                for s in self.searches
            ]
        }


def current(search: SearchRecord, home: Home) -> SearchRecord:
    """Return a search with the status `interrupted` if it is recorded as running, but is not.

    Only a journal in this home says so: others may run searches of a shared tracking store.
    """
    try:
        folder = home.search(search.name)
    except RecordError:  # no name that a search of this home could have
        return search
    if search.status != "running" or not (folder / JOURNAL_FILE).is_file() or is_running(folder):
        return search
    return replace(search, status="interrupted")
