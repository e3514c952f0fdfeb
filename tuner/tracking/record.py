"""What the tracking store holds of past searches, read back.

A search is a parent run, a trial a child run. Everything that a replay needs is there: the
specification (`spec.json`), the reports (metrics by step) and the environment (tags).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from model.engine.report import METRICS, SOME_METRICS, Report, Status
from model.sources.fingerprint import FileDigest
from model.spec.trial import TrialSpec
from tuner.errors import RecordError
from tuner.tracking.records import (
    SearchRecord,
    TrialRecord,
    _as_reported,
    _search_record,
    _trial_record,
)
from tuner.tracking.store import open_client, store_errors
from tuner.tracking.tags import DATA_FILE, ENVIRONMENT, SPEC_FILE, Tag

if TYPE_CHECKING:
    from mlflow.entities import Run

P = ParamSpec("P")
R = TypeVar("R")

_MOST_RUNS = 50_000
_SHORTEST_RUN_ID = 8  # letters that `tuner show` prints
_LONGEST_RUN_ID = 32


class Record:
    """Reads a tracking store.

    Args:
        uri: of the store.

    Raises:
        StoreError: from any method, if the store cannot be used.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = open_client(uri)

    def _ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        with store_errors(self.uri):
            return call(*args, **kwargs)

    def _runs(self, condition: str) -> list[Run]:
        """All runs that fit, newest first."""
        ids = [e.experiment_id for e in self._ask(self.client.search_experiments)]
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
        return runs

    def searches(self) -> list[SearchRecord]:
        """All searches, newest first."""
        return [_search_record(run) for run in self._runs(f"tags.`{Tag.KIND}` = 'search'")]

    def search(self, name: str | None = None) -> SearchRecord:
        """The search of a name, or the newest one.

        Raises:
            RecordError: if there is none.
        """
        searches = self.searches()
        for search in searches:
            if name in {None, search.name, search.run_id}:
                return search
        if name is None:
            raise RecordError(f"no search is recorded in {self.uri}; run 'tuner search' first")
        known = ", ".join(s.name for s in searches[:5]) or "none"
        raise RecordError(f"no search is called {name}; the newest are: {known}")

    def newest(self, name: str) -> SearchRecord | None:
        """The newest search with a best trial that has a name, or whose space has it.

        Returns:
            The search; None if none has the name.

        Raises:
            RecordError: if those that have it have no best trial.
        """
        space = self._ask(self.client.get_experiment_by_name, name)
        experiment_id = space.experiment_id if space else None
        found = [s for s in self.searches() if name == s.name or experiment_id == s.experiment_id]
        for search in found:
            if search.best_run is not None:
                return search
        if found:
            raise RecordError(
                f"the search {found[0].name} ({found[0].status}) has no best trial; let it finish"
            )
        return None

    def trials(self, search: SearchRecord) -> list[TrialRecord]:
        """The trials of a search by number."""
        return self.children(search.run_id)

    def children(self, parent_run: str) -> list[TrialRecord]:
        """The trials whose parent run this is, by number."""
        runs = self._runs(f"tags.`{Tag.PARENT}` = '{parent_run}'")
        return sorted(map(_trial_record, runs), key=lambda t: t.number)

    def finished(
        self, environment: Mapping[str, str], data_fingerprint: str | None = None
    ) -> dict[str, str]:
        """Trials that were trained to the end in an environment.

        Args:
            environment: device and versions, all of which must be the same.
            data_fingerprint: of the only data to ask for.

        Returns:
            The hash of each specification → the newest run of it.
        """
        tags = {Tag.KIND: "trial", Tag.STATUS: "finished"}
        if data_fingerprint is not None:
            tags[Tag.DATA] = data_fingerprint
        needed = {name: environment.get(name, "") for name in ENVIRONMENT}
        tags |= {k: v for k, v in needed.items() if "'" not in v}  # which a filter cannot quote
        runs = self._runs(" and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items()))
        return {
            run.data.tags[Tag.SPEC_HASH]: run.info.run_id
            for run in reversed(runs)
            if all(run.data.tags.get(name) == value for name, value in needed.items())
        }

    def trial(self, run_id: str) -> TrialRecord:
        """The trial of a run id, of its first eight or more letters, or such as `lm-1/13`.

        Raises:
            RecordError: if no trial has it, or several have.
        """
        if "/" in run_id:
            return self._numbered(*run_id.rsplit("/", 1))
        if not run_id.isalnum():
            raise RecordError(f"{run_id!r} is no run id; 'tuner show' lists them")
        if len(run_id) == _LONGEST_RUN_ID:
            trials = self._run(run_id)
        else:
            trials = self._runs(f"tags.`{Tag.KIND}` = 'trial'")
        is_long = len(run_id) >= _SHORTEST_RUN_ID
        found = [run for run in trials if is_long and run.info.run_id.startswith(run_id)]
        if len(found) != 1:
            many = "no trial" if not found else "more than one trial"
            raise RecordError(f"{many} has the run id {run_id}; 'tuner show' lists them")
        return _trial_record(found[0])

    def _numbered(self, search: str, number: str) -> TrialRecord:
        trials = self.trials(self.search(search))
        found = [t for t in trials if number.isdecimal() and t.number == int(number)]
        if not found:
            raise RecordError(
                f"{search} has no trial {number}; 'tuner show --search {search}' lists them"
            )
        return found[0]

    def _run(self, run_id: str) -> list[Run]:
        """The run of a trial with a whole run id, if there is one."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        with store_errors(self.uri):
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise
                return []
        is_trial = run.data.tags.get(Tag.KIND) == "trial"
        return [run] if is_trial and run.info.lifecycle_stage == "active" else []

    def best(self, search: SearchRecord) -> TrialRecord:
        """The best trial of a search.

        Raises:
            RecordError: if the search has none yet.
        """
        if search.best_run is None:
            raise RecordError(
                f"the search {search.name} ({search.status}) has no best trial; replay one of its "
                f"trials by its run id ('tuner show --search {search.name}')"
            )
        return self.trial(search.best_run)

    def spec(self, trial: TrialRecord) -> TrialSpec:
        """A trial's specification.

        Raises:
            RecordError: if it was not recorded, or not by a version that this one understands.
        """
        try:
            data = json.loads(self._text(trial.run_id, SPEC_FILE))
            return TrialSpec.model_validate(data)
        except ValueError as error:
            raise RecordError(
                f"the specification of trial {trial.number} of {trial.search} is damaged or of "
                f"another version of tuner: {str(error).splitlines()[0]}"
            ) from error

    def data_files(self, trial: TrialRecord) -> tuple[FileDigest, ...]:
        """What the files of the data were when the trial's search began."""
        text = self._text(self.search(trial.search).run_id, DATA_FILE)
        return tuple(FileDigest(*file) for file in json.loads(text))

    def _text(self, run_id: str, name: str) -> str:
        with TemporaryDirectory() as folder:
            path = self._ask(self.client.download_artifacts, run_id, name, folder)
            return Path(path).read_text(encoding="utf-8")

    def has(self, run_id: str, name: str) -> bool:
        """Whether a file is attached to a run."""
        parent = name.rpartition("/")[0] or None
        files = self._ask(self.client.list_artifacts, run_id, parent)
        return name in [file.path for file in files]

    def download(self, run_id: str, name: str, folder: str) -> Path | None:
        """Fetch a file that is attached to a run.

        Args:
            run_id: of a search or of a trial.
            name: of the file, as `state/checkpoint.safetensors`.
            folder: where to.

        Returns:
            The file; None if the run has none of that name.
        """
        if not self.has(run_id, name):
            return None
        return Path(self._ask(self.client.download_artifacts, run_id, name, folder))

    def equal(self, spec_hash: str) -> list[TrialRecord]:
        """The trials that have a specification, newest first."""
        condition = f"tags.`{Tag.KIND}` = 'trial' and tags.`{Tag.SPEC_HASH}` = '{spec_hash}'"
        return [_trial_record(run) for run in self._runs(condition)]

    def reports(self, trial: TrialRecord) -> dict[int, dict[str, float]]:
        """A trial's reports: step → metric → value, in the order of the steps."""
        reports: dict[int, dict[str, float]] = {}
        for name in (*METRICS, *SOME_METRICS):
            for metric in self._ask(self.client.get_metric_history, trial.run_id, name):
                reports.setdefault(metric.step, {})[name] = metric.value
        return dict(sorted(reports.items()))

    def report_list(self, trial: TrialRecord, spec: TrialSpec) -> list[Report]:
        """A trial's reports as they were made, but for checkpoints: these are not recorded.

        Args:
            trial: whose.
            spec: its specification, which says when a trial is finished.
        """
        total = spec.hyperparameters.total_steps
        reports = []
        for step, metrics in self.reports(trial).items():
            values: dict[str, Any] = {k: _as_reported(v) for k, v in metrics.items()}
            del values["perplexity"]  # follows from the loss
            has_diverged = math.isnan(values["val_loss"])
            status = Status.FINISHED if step == total else Status.TRAINING
            reports.append(
                Report(
                    trial_id=str(trial.number),
                    status=Status.DIVERGED if has_diverged else status,
                    step=step,
                    tokens=int(values.pop("tokens")),
                    **values,
                )
            )
        return reports
