"""The runs of a search in MLflow: found, made, written and closed; each call at once, or it raises.

The search is a parent run and each trial a child run. Runs are found by their tags. Of a trial, the
parameters are written when it is described, and the tag of its status after everything else, so
that what a run has says what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from model.engine.report import Report
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.trial import TrialSpec
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.store import store_errors
from tuner.tracking.tags import SPEC_FILE, STATE_FILE, SystemMetrics, Tag

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

NO_TAGS: Mapping[str, str] = MappingProxyType({})
_MOST_METRICS = 1000  # in one call of MLflow
_SHARED_TAGS = (Tag.SAMPLER, Tag.SCHEDULER)
# How MLflow says what we say in words; all others have failed.
_STATUSES = {
    "running": "RUNNING", "finished": "FINISHED", "stopped": "FINISHED", "same": "FINISHED",
    "interrupted": "KILLED",
}  # fmt: skip


class RunStart(NamedTuple):
    """What a trial's run is made of.

    Attributes:
        spec: what it trains.
        environment: device and versions.
        time_ms: when it began.
        tags: others that the run gets.
    """

    spec: TrialSpec
    environment: Mapping[str, str]
    time_ms: int
    tags: Mapping[str, str] = NO_TAGS


class TimedReport(NamedTuple):
    """A report and when it came."""

    report: Report
    time_ms: int


def trial_tags(
    parent: int | None = None, confirms: int | None = None, *, recorded: bool = False
) -> dict[str, str]:
    """Tags of a trial's run.

    Args:
        parent: the trial from whose state it went on.
        confirms: the trial whose configuration it trains with another seed.
        recorded: whether its reports are those of an equal trial that was trained before.
    """
    links = {Tag.PARENT_TRIAL: parent, Tag.CONFIRMS: confirms}
    tags = {name: str(number) for name, number in links.items() if number is not None}
    return {**tags, Tag.ORIGIN: "recorded"} if recorded else tags


class Runs:
    """The runs of one search.

    Args:
        uri: of the MLflow store.
        artifacts: where a local store keeps artifacts.
        experiment: name of the MLflow experiment, the name of the space.
        search: unique name of the search.
        tags: of the parent run; those of `_SHARED_TAGS` are its trials' as well.
        resume: go on with the parent run that the store has, if it has one.
        inputs: what parent and trials are trained on.

    Attributes:
        found: the search as it was recorded before.
        experiment_id: of MLflow.
        run_id: of the parent run.
        started_ms: when it began.

    Raises:
        StoreError: if the store cannot be used.
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path,
        experiment: str,
        search: str,
        tags: Mapping[str, str],
        *,
        resume: bool,
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        self._inputs = list(inputs)
        self._shared = {name: tags[name] for name in _SHARED_TAGS if name in tags}
        self.record = Record(uri)
        self._client = self.record.client
        self._search = search
        searches = self.record.searches() if resume else []
        self.found = next((s for s in searches if s.name == search), None)
        with store_errors(uri):
            if self.found is None:
                location = artifacts.as_uri() if uri.startswith("sqlite:") else None
                self.experiment_id = self._experiment(experiment, location)
                parent = self._create_parent(tags)
                self.run_id, self.started_ms = str(parent.info.run_id), parent.info.start_time
            else:
                self.experiment_id, self.run_id = self.found.experiment_id, self.found.run_id
                self.started_ms = round(self.found.started * 1000)
                for name, value in tags.items():
                    if self.found.tags.get(name) != value:
                        self._client.set_tag(self.run_id, name, value)

    # the parent -------------------------------------------------------------------------------

    def _experiment(self, name: str, location: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=location))

    def _create_parent(self, tags: Mapping[str, str]) -> Run:
        all_tags = {
            Tag.KIND: "search",
            Tag.SEARCH: self._search,
            Tag.STATUS: "running",
            Tag.SOURCE: "tuner search",
            **tags,
        }
        return self._client.create_run(self.experiment_id, tags=all_tags, run_name=self._search)

    def attach(self, path: Path, folder: str | None) -> None:
        """Attach a file to the parent run."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def attach_text(self, text: str, name: str) -> None:
        """Attach a text to the parent run, as a file of this name."""
        self._client.log_text(self.run_id, text, name)

    def log_inputs(self, run_id: str) -> None:
        """Say what a run is trained on; MLflow keeps equal inputs once."""
        if self._inputs:
            self._client.log_inputs(run_id, self._inputs)

    def log_vitals(self, vitals: Iterable[SystemMetrics]) -> None:
        """Write how busy the workers were; a step is a second since the search began."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, time_ms, max(0, time_ms - self.started_ms) // 1000)
            for values, time_ms in vitals
            for name, value in values.items()
        ]
        for i in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self.run_id, metrics[i : i + _MOST_METRICS])

    def attach_state(self, run_id: str, path: Path, tokens: int) -> None:
        """Attach the state of a trial, and say at how many tokens it was."""
        self._client.log_artifact(run_id, str(path), str(Path(STATE_FILE).parent))
        self._client.set_tag(run_id, Tag.STATE, str(tokens))

    def sum_up(self, metrics: Mapping[str, float], best_run: str | None, time_ms: int) -> None:
        """Write the summary on the parent run."""
        from mlflow.entities import Metric, RunTag

        values = [Metric(name, value, time_ms, 0) for name, value in metrics.items()]
        tags = [RunTag(Tag.BEST, best_run)] if best_run else []
        self._client.log_batch(self.run_id, values, tags=tags)

    # trials -----------------------------------------------------------------------------------

    def children(self) -> list[TrialRecord]:
        """The trials of the search; of two with one number, the one with contents is first."""
        return sorted(self.record.children(self.run_id), key=lambda t: not t.parameters)

    def create(self, number: int, birth: RunStart) -> str:
        """Make the run of a trial; it is then running and not yet described."""
        spec = birth.spec
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
            **birth.tags,
            **birth.environment,
        }
        name = f"{self._search}/{number:03d}"
        run = self._client.create_run(
            self.experiment_id, start_time=birth.time_ms, tags=tags, run_name=name
        )
        return str(run.info.run_id)

    def describe(self, run_id: str, spec: TrialSpec) -> None:
        """Write what a trial is trained on, its specification, and its parameters after these."""
        from mlflow.entities import Param

        parameters = {
            **{name: getattr(spec.hyperparameters, name) for name in SYMBOL_TABLE},
            **spec.architecture.model_dump(),
            "micro_batch": spec.micro_batch,
            "seed": spec.seed,
        }
        self.log_inputs(run_id)
        self._client.log_text(run_id, spec.model_dump_json(indent=2), SPEC_FILE)
        params = [Param(name, str(value)) for name, value in parameters.items()]
        self._client.log_batch(run_id, params=params)

    def log(self, run_id: str, told: Sequence[TimedReport]) -> int:
        """Write reports, all or none of them; how many metrics these are."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, time_ms, report.step)
            for report, time_ms in told
            for name, value in report.metrics().items()
        ]
        self._client.log_batch(run_id, metrics)
        return len(metrics)

    def set_status(self, run_id: str, status: str, time_ms: int) -> None:
        """Say how a run stands: `running` and since when it goes on, or how it ended and when."""
        state = _STATUSES.get(status.split()[0], "FAILED")
        if state == "RUNNING":
            self._client.update_run(run_id, status=state)
        else:
            self._client.set_terminated(run_id, state, time_ms)
        self._client.set_tag(run_id, Tag.STATUS, status)

    def delete(self, run_id: str) -> None:
        """Delete a run that was made twice."""
        self._client.delete_run(run_id)
