"""Finds, creates, writes and closes the runs of a search; each call writes at once or raises.

The search is a parent run and each trial a child run. Runs are found by their tags. The parameters
of a trial are written last in its description, and the tag of its status after everything else:
the contents of a run show which contents it lacks. MLflow writes the parameters of a batch before
its metrics, and its tags last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from model.engine.report import Report
from model.spec.trial import TrialSpec
from tuner.errors import StoreError
from tuner.home.artifact_locations import is_inside
from tuner.home.home import Home
from tuner.tracking.metrics import SystemMetrics
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord, parameters_of
from tuner.tracking.store import store_errors
from tuner.tracking.tags import CHECKPOINT_FILE, SPEC_FILE, Tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, FileInfo

NO_TAGS: Mapping[str, str] = MappingProxyType({})
_MOST_METRICS = 1000  # in one call of MLflow
_SHARED_TAGS = (Tag.SAMPLER, Tag.SCHEDULER)
# First word of our status → status of MLflow; any other word means FAILED.
_STATUSES = {
    "running": "RUNNING", "finished": "FINISHED", "stopped": "FINISHED", "same": "FINISHED",
    "interrupted": "KILLED", "infeasible:": "KILLED",
}  # fmt: skip


class RunStart(NamedTuple):
    """Contents of a trial's run at its start.

    Attributes:
        spec: specification of the trial.
        environment: device and versions.
        time_ms: time of the start, in milliseconds since the epoch.
        tags: further tags of the run.
    """

    spec: TrialSpec
    environment: Mapping[str, str]
    time_ms: int
    tags: Mapping[str, str] = NO_TAGS


class TimedReport(NamedTuple):
    """A report and the time at which the driver received it, in milliseconds since the epoch."""

    report: Report
    time_ms: int


def trial_tags(
    parent: int | None = None, confirms: int | None = None, *, recorded: bool = False
) -> dict[str, str]:
    """Return the tags that link a trial's run to other trials.

    Args:
        parent: the trial from whose checkpoint it continued.
        confirms: the trial whose configuration it trains with another seed.
        recorded: True if the reports of an equal earlier trial were reused.
    """
    links = {Tag.PARENT_TRIAL: parent, Tag.CONFIRMS: confirms}
    tags = {name: str(number) for name, number in links.items() if number is not None}
    return {**tags, Tag.ORIGIN: "recorded"} if recorded else tags


@dataclass(frozen=True)
class RunSettings:
    """Place and description of a search in MLflow.

    Attributes:
        uri: URI of the MLflow store.
        artifacts: folder in which a local store keeps artifacts.
        experiment: name of the MLflow experiment, which is the name of the space.
        search: unique name of the search.
        tags: tags of the parent run; those in `_SHARED_TAGS` are set on its trials as well.
        resume: continue the runs of this search that the store has, and create the missing ones.
        inputs: returns the training and validation data of parent and trials.
        may_write: returns False once another driver records the search; then nothing is sent.
    """

    uri: str
    artifacts: Path
    experiment: str
    search: str
    tags: Mapping[str, str]
    resume: bool = False
    inputs: Callable[[], Sequence[DatasetInput]] = tuple
    may_write: Callable[[], bool] = lambda: True


class _FencedClient:
    """A client of MLflow that takes no request once another driver records the search."""

    def __init__(self, client: MlflowClient, may_write: Callable[[], bool]) -> None:
        self._client, self._may_write = client, may_write

    def __getattr__(self, name: str) -> Any:
        if not self._may_write():
            raise StoreError("another driver records the search")
        return getattr(self._client, name)


class Runs:
    """The runs of one search.

    Args:
        settings: place and description of the search.

    Attributes:
        previous: the search as it was recorded before; None if it is new.
        experiment_id: of MLflow.
        run_id: run id of the parent run.
        started_ms: time of the start of the search, in milliseconds since the epoch.

    Raises:
        StoreError: if the store cannot be used.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._inputs = list(settings.inputs())
        tags = settings.tags
        self._shared = {name: tags[name] for name in _SHARED_TAGS if name in tags}
        self.record = Record(settings.uri)
        fenced = _FencedClient(self.record.client, settings.may_write)
        self._client = cast("MlflowClient", fenced)
        self._search = settings.search
        self.previous = self._recorded() if settings.resume else None
        with store_errors(settings.uri):
            if self.previous is None:
                is_local = settings.uri.startswith("sqlite:")
                location = settings.artifacts.as_uri() if is_local else None
                self.experiment_id = self._experiment(settings.experiment, location)
                self.run_id, self.started_ms = self._create_parent(tags)
            else:
                self.experiment_id, self.run_id = self.previous.experiment_id, self.previous.run_id
                self.started_ms = round(self.previous.started * 1000)
                for name, value in tags.items():
                    if self.previous.tags.get(name) != value:
                        self._client.set_tag(self.run_id, name, value)

    # the parent -------------------------------------------------------------------------------

    def _experiment(self, name: str, location: str | None) -> str:
        """Return the id of the experiment of a name; create it if there is none."""
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # another search of the space may have begun at the same moment
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        self._check_location(name, str(experiment.artifact_location))
        return str(experiment.experiment_id)

    def _check_location(self, name: str, location: str) -> None:
        """Raise StoreError if an experiment in the store of a home keeps its files elsewhere."""
        home = self._settings.artifacts.parent
        if Home(home, self._settings.uri).is_local and not is_inside(location, home):
            raise StoreError(
                f"the experiment {name} in {home} keeps its files at {location}, outside of this "
                f"home, where nothing is written; give the space another name"
            )

    def _recorded(self) -> SearchRecord | None:
        """Return the search as the store has it; None if it has no run of this name."""
        return next((s for s in self.record.searches() if s.name == self._search), None)

    def _create_parent(self, tags: Mapping[str, str]) -> tuple[str, int]:
        """Create the run of the search; return its id and the time of its start."""
        all_tags = {
            Tag.KIND: "search",
            Tag.SEARCH: self._search,
            Tag.STATUS: "running",
            Tag.SOURCE: "tuner search",
            **tags,
        }
        try:
            run = self._client.create_run(self.experiment_id, tags=all_tags, run_name=self._search)
        except Exception:
            # the store may have made the run and its answer is lost; then the run takes the name
            created = self._recorded()
            if created is None:
                raise
            return created.run_id, round(created.started * 1000)
        return str(run.info.run_id), run.info.start_time

    def attach(self, path: Path, folder: str | None, tags: Mapping[str, str] = NO_TAGS) -> None:
        """Attach a file to the parent run, then set tags of the run."""
        self._client.log_artifact(self.run_id, str(path), folder)
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, value)

    def artifacts(self) -> list[FileInfo]:
        """Return the files of the parent run."""
        return list(self._client.list_artifacts(self.run_id))

    def attach_text(self, text: str, name: str) -> None:
        """Attach a text to the parent run as a file."""
        self._client.log_text(self.run_id, text, name)

    def log_inputs(self, run_id: str) -> None:
        """Write the data sets of a run; MLflow stores equal inputs once."""
        if self._inputs:
            self._client.log_inputs(run_id, self._inputs)

    def log_system_metrics(self, samples: Iterable[SystemMetrics]) -> None:
        """Write the load of the workers, and the newest tags; a step is a second of the search."""
        from mlflow.entities import Metric, RunTag

        metrics: list[Metric] = []
        tags: dict[str, str] = {}
        for values, time_ms, tags_then in samples:
            step = max(0, time_ms - self.started_ms) // 1000
            metrics += [Metric(name, value, time_ms, step) for name, value in values.items()]
            tags.update(tags_then)
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        for i in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self.run_id, metrics[i : i + _MOST_METRICS], tags=run_tags)

    def attach_checkpoint(self, run_id: str, path: Path, tokens: int) -> None:
        """Attach the checkpoint of a trial, and tag its run with the training tokens."""
        self._client.log_artifact(run_id, str(path), str(Path(CHECKPOINT_FILE).parent))
        self._client.set_tag(run_id, Tag.STATE, str(tokens))

    def log_summary(
        self,
        metrics: Mapping[str, float],
        best_run: str | None,
        time_ms: int,
        tags: Mapping[str, str] = NO_TAGS,
    ) -> None:
        """Write the summary to the parent run, with further tags."""
        from mlflow.entities import Metric, RunTag

        values = [Metric(name, value, time_ms, 0) for name, value in metrics.items()]
        all_tags = {**tags, Tag.BEST: best_run} if best_run else tags
        run_tags = [RunTag(name, value) for name, value in all_tags.items()]
        self._client.log_batch(self.run_id, values, tags=run_tags)

    # trials -----------------------------------------------------------------------------------

    def children(self, on_page: Callable[[], None] = lambda: None) -> list[TrialRecord]:
        """Return the trials of the search; those that are described come first.

        Args:
            on_page: as for `Record.children`.
        """
        children = self.record.children(self.run_id, self.experiment_id, on_page)
        return sorted(children, key=lambda t: not t.parameters)

    def create(self, number: int, start: RunStart) -> str:
        """Create the run of a trial, which is then running and not yet described."""
        spec = start.spec
        tags = {
            Tag.PARENT: self.run_id,
            Tag.KIND: "trial",
            Tag.SOURCE: "tuner search",
            Tag.SEARCH: self._search,
            Tag.STATUS: "running",
            Tag.TRIAL: str(number),
            Tag.SEED: str(spec.seed),
            Tag.SPEC_HASH: spec.hash,
            Tag.DATA: spec.data_fingerprint,
            Tag.TOKENIZER: spec.tokenizer_fingerprint,
            **self._shared,
            **start.tags,
            **start.environment,
        }
        name = f"{self._search}/{number:03d}"
        run = self._client.create_run(
            self.experiment_id, start_time=start.time_ms, tags=tags, run_name=name
        )
        return str(run.info.run_id)

    def attach_spec(self, run_id: str, spec: TrialSpec) -> None:
        """Write the data sets of a trial, then its specification."""
        self.log_inputs(run_id)
        self._client.log_text(run_id, spec.model_dump_json(indent=2), SPEC_FILE)

    def log(
        self,
        run_id: str,
        reports: Sequence[TimedReport],
        spec: TrialSpec | None = None,
        status: str | None = None,
    ) -> int:
        """Write parameters of a trial, then all reports or none, then its status, in one call.

        Args:
            run_id: run of the trial.
            reports: reports to write.
            spec: specification whose parameters to write before the reports; None for none.
            status: status to write after the reports, whose state is set already; None for none.

        Returns:
            Number of metrics.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, value, time_ms, report.step)
            for report, time_ms in reports
            for name, value in report.metrics().items()
        ]
        parameters = {} if spec is None else parameters_of(spec)
        params = [Param(name, value) for name, value in parameters.items()]
        tags = [] if status is None else [RunTag(Tag.STATUS, status)]
        self._client.log_batch(run_id, metrics, params=params, tags=tags)
        return len(metrics)

    def set_status(self, run_id: str, status: str, time_ms: int) -> None:
        """Write the status of a run: `running`, or the outcome and its time."""
        self.set_state(run_id, status, time_ms)
        self._client.set_tag(run_id, Tag.STATUS, status)

    def set_state(self, run_id: str, status: str, time_ms: int) -> None:
        """Set the state that MLflow shows for a status."""
        state = _STATUSES.get(status.split()[0], "FAILED")
        if state == "RUNNING":
            self._client.update_run(run_id, status=state)
        else:
            self._client.set_terminated(run_id, state, time_ms)

    def delete(self, run_id: str) -> None:
        """Delete a duplicate run."""
        self._client.delete_run(run_id)
