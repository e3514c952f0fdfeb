"""The journal of a recorded search: the home's, or the copy that is recorded with the search."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.journal.journal import JOURNAL_FILE, check_digest, read_entries
from tuner.journal.lines import Entry
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import Tag


def recorded_search(record: Record, search: SearchRecord, home: Home) -> Search:
    """Return a search as the home's journal describes it, or the copy that is recorded.

    Raises:
        RecordError: if there is neither.
        JournalError: if the journal is damaged, is not the recorded one, or another version of
            tuner wrote it.
        StoreError: if the tracking store cannot be used.
    """
    digest = search.tags.get(Tag.JOURNAL)
    entries = read_entries(home.search(search.name))
    if not entries or (digest is not None and digest not in {entry.digest for entry in entries}):
        # a journal that does not begin like the recorded one is of another search of this name
        entries = _copy(record, search) or entries
        if not entries:
            raise RecordError(
                f"the journal of {search.name} is neither in {home.root} nor recorded; run 'tuner "
                f"sync {search.name}' where it was searched"
            )
        check_digest(search.name, entries, digest)
    return Search.of_name((entry.event for entry in entries), search.name)


def _copy(record: Record, search: SearchRecord) -> list[Entry]:
    """Return the entries of the copy that is attached to the run of a search."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, search.name)  # errors name the search by its folder
        folder.mkdir(parents=True)
        if record.download(search.run_id, JOURNAL_FILE, str(folder)) is None:
            return []
        return read_entries(folder)
