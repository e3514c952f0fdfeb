"""Trials of a search for tables: from the journal of the home where it has one.

MLflow reads a run with all its tags, parameters and metrics in 3 ms; a journal has all of them in a
tenth of that.
"""

from __future__ import annotations

from tuner.errors import JournalError, RecordError
from tuner.home.home import Home
from tuner.journal.fold import JournaledTrial, Search
from tuner.journal.journal import read_entries
from tuner.tracking.metrics import as_stored
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.tracking.runs import parameters_of
from tuner.tracking.tags import ENVIRONMENT, Tag


def journaled(home: Home, search: SearchRecord) -> Search | None:
    """Return a search as its journal in the home has it; None without a readable one.

    The record may be older than the journal, but a journal that lacks the recorded lines is of
    another search of this name.
    """
    digest = search.tags.get(Tag.JOURNAL)
    try:
        entries = read_entries(home.search(search.name))
        if digest is not None and digest not in {entry.digest for entry in entries}:
            return None
        return Search.of(entry.event for entry in entries)
    except (JournalError, RecordError):
        return None


def trials_of(record: Record, search: SearchRecord, known: Search | None) -> list[TrialRecord]:
    """Return the trials of a search by number.

    Args:
        record: the store.
        search: the search.
        known: the search by its journal, if that is at hand. Then trials have no specification
            hash, location of artifacts or kept checkpoint.

    Raises:
        RecordError, StoreError: as for `Record.trials`.
    """
    if known is not None:
        runs = record.run_ids(search)
        if runs.keys() == known.trials.keys():
            return [
                _record_of(search.name, trial, runs[number])
                for number, trial in sorted(known.trials.items())
            ]
    return record.trials(search)


def _record_of(search: str, trial: JournaledTrial, run_id: str) -> TrialRecord:
    begun, environment = trial.begun, trial.environment
    metrics = {
        name: as_stored(value)
        for report in trial.trial.reports
        for name, value in report.metrics().items()
    }
    return TrialRecord(
        run_id=run_id,
        number=begun.number,
        search=search,
        status="running" if trial.trial.outcome is None else str(trial.trial.outcome),
        parameters=parameters_of(begun.spec),
        metrics=metrics,
        environment={name: environment.get(name, "unknown") for name in ENVIRONMENT},
        artifact_uri="",
        parent=begun.parent,
        confirms=begun.confirms,
    )
