"""Reads a search back: the result it had, or has so far, from its journal."""

from __future__ import annotations

from tuner.errors import RecordError
from tuner.home.home import Home
from tuner.results.result import SearchResult
from tuner.tracking.record import Record
from tuner.trained.recorded_trials import recorded_search


def load_search(name: str | None = None, *, home: Home | None = None) -> SearchResult:
    """Read a search back from its record.

    Args:
        name: name of the search; by default the newest one.
        home: home of the search; by default ./runs.

    Returns:
        Result of the search; of a search that still runs or was killed, the result so far.

    Raises:
        RecordError: if there is no such search, its journal is not recorded, or none of its trials
            has reported.
        JournalError: if the journal is damaged, is not the recorded one, or another version of
            tuner wrote it.
        StoreError: if the tracking store cannot be used.
    """
    home = home or Home.recorded()
    record = Record(home.tracking_uri)
    search = record.search(name)
    result = SearchResult.of(
        search.name, recorded_search(record, search, home), run_id=search.run_id,
        experiment_id=search.experiment_id, run_ids=record.run_ids(search),
    )  # fmt: skip
    if result is None:
        raise RecordError(f"no trial of {search.name} ({search.status}) has reported a result yet")
    return result
