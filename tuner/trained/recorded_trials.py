"""Recorded searches and trials by their journals: the home's, or the copies in MLflow.

MLflow resolves run ids and keeps files. Specifications, reports, outcomes and environments are
those of the journal, whose lines are chained and whose digest is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from model.spec.trial import TrialSpec
from tuner.conductor.trial import Trial
from tuner.errors import JournalError, RecordError
from tuner.home.home import Home
from tuner.journal.fold import JournaledTrial, Search
from tuner.journal.journal import JOURNAL_FILE, check_digest, read_entries
from tuner.journal.lines import Entry
from tuner.tracking.metrics import as_stored
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
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
    if not entries or not _begins_as(entries, digest):
        copy = _copy(record, search)
        if copy and not _is_edited(entries, copy):
            entries = copy
        if not entries:
            raise RecordError(
                f"the journal of {search.name} is neither in {home.root} nor recorded; run 'tuner "
                f"sync {search.name}' where it was searched"
            )
        check_digest(search.name, entries, digest)
    return Search.of_name((entry.event for entry in entries), search.name)


def journaled(home: Home, search: SearchRecord) -> Search | None:
    """Return a search as its journal in the home has it; None without a readable one.

    The record may be older than the journal, but a journal that lacks the recorded lines is of
    another search of this name.
    """
    try:
        entries = read_entries(home.search(search.name))
        if not _begins_as(entries, search.tags.get(Tag.JOURNAL)):
            return None
        return Search.of(entry.event for entry in entries)
    except (JournalError, RecordError):
        return None


def _begins_as(entries: list[Entry], digest: str | None) -> bool:
    """Return True if a journal begins with the lines that were recorded, if any were."""
    return digest is None or digest in {entry.digest for entry in entries}


def _is_edited(entries: list[Entry], copy: list[Entry]) -> bool:
    """Return True if a journal is of the search of its copy, and has a line that the copy lacks.

    Without such a line it is only older, and one that begins otherwise is of another search of
    this name.
    """
    digests = [entry.digest for entry in copy]
    return bool(entries) and entries[0].digest == digests[0] and entries[-1].digest not in digests


def _copy(record: Record, search: SearchRecord) -> list[Entry]:
    """Return the entries of the copy that is attached to the run of a search."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, search.name)  # errors name the search by its folder
        folder.mkdir(parents=True)
        if record.download(search.run_id, JOURNAL_FILE, str(folder)) is None:
            return []
        return read_entries(folder)


@dataclass(frozen=True)
class RecordedTrial:
    """A trial by the journal of its search, with its run in MLflow.

    Attributes:
        search: record of its search.
        journal: its search, by the journal.
        record: the trial as tables show it, with its run and its kept checkpoint.
    """

    search: SearchRecord
    journal: Search
    record: TrialRecord

    @property
    def journaled(self) -> JournaledTrial:
        """The trial with what the journal says beside."""
        return self.journal.trials[self.record.number]

    @property
    def trial(self) -> Trial:
        """The trial, with its reports and outcome."""
        return self.journaled.trial

    @property
    def spec(self) -> TrialSpec:
        """Specification of the trial."""
        return self.trial.spec

    @property
    def reports(self) -> dict[int, dict[str, float]]:
        """Metrics by update; an infinity is the largest double of its sign, as in MLflow."""
        return {
            report.step: {name: as_stored(value) for name, value in report.metrics().items()}
            for report in self.trial.reports
        }


class RecordedTrials:
    """Finds the recorded trials of a store; a journal that has ended is read once.

    Args:
        record: the store; None to open that of the home when it is first needed.
        home: home of the journals.
    """

    def __init__(self, record: Record | None, home: Home) -> None:
        self._record, self.home = record, home
        self._searches: dict[str, tuple[SearchRecord, Search]] = {}

    @classmethod
    def of(cls, home: Home) -> RecordedTrials:
        """Open the store of a home.

        Raises:
            StoreError: if the store cannot be used.
        """
        return cls(Record(home.tracking_uri), home)

    @cached_property
    def record(self) -> Record:
        """The store.

        Raises:
            StoreError: if the store cannot be used.
        """
        return self._record or Record(self.home.tracking_uri)

    def find(self, run_id: str | None = None, search: str | None = None) -> RecordedTrial:
        """Return the trial of a run id, or by default the best trial of a search.

        Args:
            run_id: run id, its first eight or more letters, or `lm-1/13`; None for the best trial.
            search: name of the search; by default the newest.

        Raises:
            RecordError: if there is no such trial, or its journal is neither here nor recorded.
            JournalError: as for `recorded_search`.
            StoreError: if the store cannot be used.
        """
        return self.read(self.record.trial_or_best(run_id, search))

    def read(self, run: TrialRecord) -> RecordedTrial:
        """Return the trial of a run; raises what `find` does."""
        parent, search = self._searches.get(run.search) or self._read_search(run.search)
        if run.number not in search.trials:
            raise RecordError(
                f"the journal of {run.search} at hand has no trial {run.number}; the copy in "
                f"MLflow is completed when a session of the search ends"
            )
        trial = TrialRecord.of(run.search, search.trials[run.number], run.run_id)
        trial = replace(trial, checkpoint_tokens=run.checkpoint_tokens)
        return RecordedTrial(parent, search, trial)

    def _read_search(self, name: str) -> tuple[SearchRecord, Search]:
        parent = self.record.search(name)
        search = recorded_search(self.record, parent, self.home)
        if search.end is not None:  # else it may have more trials soon
            self._searches[name] = parent, search
        return parent, search

    def finished(
        self, spec_hash: str, environment: Mapping[str, str], experiments: list[str] | None = None
    ) -> Iterator[RecordedTrial]:
        """Yield the finished trials with a specification and an environment, newest first.

        A trial whose journal cannot be read is left out.

        Args:
            spec_hash: hash of the specification.
            environment: device and versions, by the names of `ENVIRONMENT`.
            experiments: ids of the experiments to look into; by default all.

        Raises:
            StoreError: if the store cannot be used.
        """
        for run in self.record.finished(spec_hash, experiments):
            try:
                trial = self.read(run)
            except (RecordError, JournalError):
                continue
            is_equal = trial.spec.hash == spec_hash and trial.record.environment == environment
            if is_equal and trial.trial.has_finished:
                yield trial
