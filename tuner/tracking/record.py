"""Reads past searches from the tracking store.

A search is a parent run, a trial a child run. The store is asked for runs and their files. What
happened in a search is in its journal, of which a file of the parent run is a copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pydantic import TypeAdapter

from model.sources.fingerprint import FileDigest
from tuner.errors import RecordError
from tuner.home.names import check_name, check_run_name
from tuner.texts.formatting import short_run
from tuner.tracking.records import (
    SearchRecord,
    TrialRecord,
    search_record,
    trial_record,
)
from tuner.tracking.run_ids import NotReadable, read_names, read_run_ids
from tuner.tracking.store import if_found, open_client, reading_errors
from tuner.tracking.tags import DATA_FILE, Tag

if TYPE_CHECKING:
    from mlflow.entities import Run

P = ParamSpec("P")
R = TypeVar("R")

_MOST_RUNS = 50_000
_SHORTEST_RUN_ID = 8  # letters, as many as `tuner show` prints
_LONGEST_RUN_ID = 32
_NUMBER = r"[0-9]{1,9}"  # of a trial
_LARGEST_TEXT = 64_000_000  # bytes of an attached JSON file
_DIGESTS = TypeAdapter(tuple[FileDigest, ...])


class Record:
    """Reads a tracking store.

    Args:
        uri: URI of the store.

    Raises:
        StoreError: from any method, if the store cannot be used.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = open_client(uri)

    def _ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        with reading_errors(self.uri):
            return call(*args, **kwargs)

    def _runs(
        self,
        condition: str,
        experiments: Sequence[str] | None = None,
        on_page: Callable[[], None] = lambda: None,
    ) -> list[Run]:
        """Return all runs that meet a condition, newest first; of some experiments if given."""
        ids = self.experiments() if experiments is None else list(experiments)
        runs: list[Run] = []
        token = None
        while len(runs) < _MOST_RUNS:
            page = self._ask(
                self.client.search_runs,
                ids,
                condition,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                break
            on_page()
        return runs

    def experiments(self) -> list[str]:
        """Return the ids of all experiments."""
        return [e.experiment_id for e in self._ask(self.client.search_experiments)]

    def has_other_searches(self, name: str, experiments: list[str]) -> bool:
        """Return whether some experiments have a search of another name."""
        condition = f"tags.`{Tag.KIND}` = 'search' and tags.`{Tag.SEARCH}` != '{name}'"
        return bool(self._ask(self.client.search_runs, experiments, condition, max_results=1))

    def searches(self) -> list[SearchRecord]:
        """Return all searches, newest first."""
        return [search_record(run) for run in self._runs(f"tags.`{Tag.KIND}` = 'search'")]

    def search(self, name: str | None = None) -> SearchRecord:
        """Return the search with a name or run id, or the newest search.

        Raises:
            RecordError: if there is no such search.
        """
        searches = self.searches()
        for search in searches:
            if name in {None, search.name, search.run_id}:
                return search
        if name is None:
            raise RecordError(f"no search is recorded in {self.uri}; run 'tuner search' first")
        check_name(name)
        names = ", ".join(s.name for s in searches[:5]) or "none"
        raise RecordError(f"no search is called {name}; the newest are: {names}")

    def newest(self, name: str) -> SearchRecord | None:
        """Return the newest search with a best trial whose own name or space's name is given.

        Returns:
            The search; None if no search and no space has the name.

        Raises:
            RecordError: if no search of that name has a best trial.
        """
        space = self._ask(self.client.get_experiment_by_name, name)
        experiment_id = space.experiment_id if space else None
        named = [s for s in self.searches() if name == s.name or experiment_id == s.experiment_id]
        for search in named:
            if search.best_run is not None:
                return search
        if named:
            raise RecordError(
                f"the search {named[0].name} ({named[0].status}) has no best trial; let it finish"
            )
        return None

    def data_and_tokenizers(self, without: Collection[str] = ()) -> set[tuple[str, str]]:
        """Return the fingerprints of data and tokenizer of all recorded trials.

        Args:
            without: runs of searches whose trials do not count.
        """
        runs = self._runs(f"tags.`{Tag.KIND}` = 'trial'")
        tags = [run.data.tags for run in runs if run.data.tags.get(Tag.PARENT) not in without]
        return {(tag.get(Tag.DATA, ""), tag.get(Tag.TOKENIZER, "")) for tag in tags}

    def trials(self, search: SearchRecord) -> list[TrialRecord]:
        """Return the trials of a search by number."""
        return self.children(search.run_id, search.experiment_id)

    def run_ids(self, search: SearchRecord) -> dict[int, str]:
        """Return the runs of the trials of a search: number → run id.

        MLflow reads a run with all its tags, parameters and metrics, which takes 3 ms. So the
        tables of a SQLite file are read here, and only them.
        """
        try:
            return read_run_ids(self.uri, search.run_id)
        except NotReadable:
            return {trial.number: trial.run_id for trial in self.trials(search)}

    def children(
        self,
        parent_run: str,
        experiment: str | None = None,
        on_page: Callable[[], None] = lambda: None,
    ) -> list[TrialRecord]:
        """Return the trials of a parent run by number.

        Args:
            parent_run: run id of the search.
            experiment: id of its experiment; None to look in all.
            on_page: called after every thousand runs but the last, which take the store seconds.
        """
        experiments = None if experiment is None else [experiment]
        runs = self._runs(f"tags.`{Tag.PARENT}` = '{parent_run}'", experiments, on_page)
        return sorted(map(trial_record, runs), key=lambda t: t.number)

    def trial(self, run_id: str) -> TrialRecord:
        """Return a trial by run id, by the first eight or more letters of it, or by `lm-1/13`.

        Raises:
            RecordError: if no trial matches, or several do.
        """
        check_run_name(run_id)
        if "/" in run_id:
            return self._numbered(*run_id.rsplit("/", 1))
        if not run_id.isalnum():
            raise RecordError(f"{run_id!r} is not a run id; 'tuner show' lists them")
        if len(run_id) == _LONGEST_RUN_ID:
            matches = self._trial_run(run_id)
        elif len(run_id) >= _SHORTEST_RUN_ID:
            begins = f"attributes.run_id LIKE '{run_id}%'"
            matches = self._runs(f"tags.`{Tag.KIND}` = 'trial' and {begins}")
        else:
            matches = []
        if len(matches) != 1:
            count = "more than one trial" if matches else "no trial"
            raise RecordError(f"{count} has the run id {run_id}; 'tuner show' lists them")
        return trial_record(matches[0])

    def _numbered(self, search: str, number: str) -> TrialRecord:
        parent = self.search(search)
        matches = []
        if re.fullmatch(_NUMBER, number):
            of_search = f"tags.`{Tag.PARENT}` = '{parent.run_id}'"
            condition = f"{of_search} and tags.`{Tag.TRIAL}` = '{int(number)}'"
            matches = self._runs(condition, [parent.experiment_id])
        if not matches:
            raise RecordError(
                f"{search} has no trial {number}; 'tuner show --search {search}' lists them"
            )
        return trial_record(matches[0])

    def _trial_run(self, run_id: str) -> list[Run]:
        """Return the run with a complete run id if it is a trial; else nothing."""
        run = if_found(self.uri, partial(self.client.get_run, run_id))
        if run is None:
            return []
        is_trial = run.data.tags.get(Tag.KIND) == "trial"
        return [run] if is_trial and run.info.lifecycle_stage == "active" else []

    def best(self, search: SearchRecord) -> TrialRecord:
        """Return the best trial of a search.

        Raises:
            RecordError: if the search has no best trial yet.
        """
        if search.best_run is None:
            raise RecordError(
                f"the search {search.name} ({search.status}) has no best trial; replay one of its "
                f"trials by its run id ('tuner show --search {search.name}')"
            )
        return self.trial(search.best_run)

    def trial_or_best(self, run_id: str | None, search: str | None) -> TrialRecord:
        """Return the trial of a run id, or by default the best trial of a search.

        Args:
            run_id: as for `trial`; None for the best trial.
            search: name of the search; by default the newest.

        Raises:
            RecordError: if there is no such trial.
        """
        return self.best(self.search(search)) if run_id is None else self.trial(run_id)

    def data_files(self, search: SearchRecord) -> tuple[FileDigest, ...]:
        """Return the digests of the data files at the start of a search.

        Raises:
            RecordError: if the recorded digests are damaged.
        """
        text = self._text(search.run_id, DATA_FILE)
        try:
            return _DIGESTS.validate_json(text)
        except ValueError as error:
            raise RecordError(
                f"the {DATA_FILE} that is recorded with {search.name} is damaged; restore the file"
            ) from error

    def _text(self, run_id: str, name: str) -> str:
        with TemporaryDirectory() as folder:
            path = Path(self._ask(self.client.download_artifacts, run_id, name, folder))
            try:
                if path.stat().st_size > _LARGEST_TEXT:
                    raise ValueError(f"it has {path.stat().st_size:,} bytes")
                return path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise RecordError(
                    f"the {name} of run {short_run(run_id)} cannot be read: {reason}; restore it"
                ) from error

    def has(self, run_id: str, name: str) -> bool:
        """Return True if a file is attached to a run."""
        parent = name.rpartition("/")[0] or None
        files = self._ask(self.client.list_artifacts, run_id, parent)
        return name in [file.path for file in files]

    def download(self, run_id: str, name: str, folder: str) -> Path | None:
        """Download a file that is attached to a run.

        Args:
            run_id: run of a search or of a trial.
            name: name of the file, as `state/checkpoint.safetensors`.
            folder: folder for the file.

        Returns:
            The file; None if the run has no file of that name.
        """
        if not self.has(run_id, name):
            return None
        return Path(self._ask(self.client.download_artifacts, run_id, name, folder))

    def finished(
        self, spec_hash: str, experiments: Sequence[str] | None = None
    ) -> list[TrialRecord]:
        """Return the finished trials with a specification hash, newest first.

        Args:
            spec_hash: hash of the specification.
            experiments: ids of the experiments to look into; by default all.
        """
        tags = {Tag.KIND: "trial", Tag.SPEC_HASH: spec_hash, Tag.STATUS: "finished"}
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return [trial_record(run) for run in self._runs(condition, experiments)]


def recorded_names(uri: str) -> set[str]:
    """Return the names of the searches of a store; none if a local store does not exist yet.

    Raises:
        StoreError: if the store cannot be used.
    """
    try:
        return read_names(uri)
    except NotReadable:
        return {search.name for search in Record(uri).searches()}
