"""The journal of a recorded search: the home's, or the copy that is recorded with the search."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.home import Home
from tuner.journal.events import Event
from tuner.journal.journal import check_digest, read_chain
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import JOURNAL_FILE, Tag


def recorded_events(record: Record, search: SearchRecord, home: Home) -> list[Event]:
    """Return the events of the home's journal, which may be newer, or of the recorded journal.

    Returns:
        The events; none if the journal is neither in the home nor recorded.

    Raises:
        JournalError: if the journal is damaged, is not the recorded one, or another version of
            tuner wrote it.
        StoreError: if the tracking store cannot be used.
    """
    local_folder = home.search(search.name)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, search.name)  # errors name the search by its folder
        folder.mkdir(parents=True)
        path = record.download(search.run_id, JOURNAL_FILE, str(folder))
        recorded = path.read_bytes() if path else b""
        local_path = local_folder / JOURNAL_FILE
        local = local_path.read_bytes() if local_path.is_file() else b""
        # a journal that does not begin like the recorded one is of another search of this name
        is_same_search = local.startswith(recorded)
        chosen = local_folder if is_same_search else folder
        events, digests = read_chain(chosen)
        if events:
            check_digest(search.name, digests, search.tags.get(Tag.JOURNAL))
    return events
