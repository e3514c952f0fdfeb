"""A search and a trial as the tracking store records them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from model.spec.lora import LORA_ENTRIES
from model.spec.trial import TrialSpec
from tuner.conductor.outcome import DIVERGED, Outcome
from tuner.errors import RecordError
from tuner.journal.fold import JournaledTrial
from tuner.space.objective import sign_of
from tuner.texts.formatting import short_run, shown
from tuner.tracking.metrics import SYSTEM, as_stored
from tuner.tracking.tags import ENVIRONMENT, Tag

if TYPE_CHECKING:
    from mlflow.entities import Run

_LARGEST = 2**63  # above all whole numbers of a database
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_FACTORS = ("total_steps", "batch_size", "context_length")  # of the tokens of a budget
_END_OF_TIME = 4_102_444_800_000  # the year 2100, in milliseconds since the epoch


@dataclass(frozen=True)
class TrialRecord:
    """One recorded trial: by the journal of its search, or by its run in MLflow.

    Attributes:
        run_id: of MLflow.
        number: number in its search, counted from 0.
        search: name of its search.
        status: finished, stopped at report n, diverged, failed or running.
        parameters: name → text, as MLflow keeps them.
        metrics: the newest value of each curve.
        environment: device and versions it ran with.
        parent: the trial from whose checkpoint it continued.
        confirms: the trial whose configuration it trains with another seed.
        checkpoint_tokens: training tokens of the kept checkpoint, if one is kept.
    """

    run_id: str
    number: int
    search: str
    status: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    environment: dict[str, str]
    parent: int | None = None
    confirms: int | None = None
    checkpoint_tokens: int | None = None

    @classmethod
    def of(cls, search: str, journaled: JournaledTrial, run_id: str) -> Self:
        """Return a trial as the journal of its search has it; it says nothing of checkpoints."""
        trial, environment = journaled.trial, journaled.environment
        metrics = {
            name: as_stored(value)
            for report in trial.reports
            for name, value in report.metrics().items()
        }
        return cls(
            run_id=run_id,
            number=trial.number,
            search=search,
            status="running" if trial.outcome is None else str(trial.outcome),
            parameters=parameters_of(trial.spec),
            metrics=metrics,
            environment={name: environment.get(name, "unknown") for name in ENVIRONMENT},
            parent=trial.parent,
            confirms=trial.confirms,
        )

    @property
    def outcome(self) -> Outcome | None:
        """How the trial ended; None while it runs."""
        try:
            return Outcome.parse(self.status)
        except ValueError:
            return None

    @property
    def keeps_checkpoint(self) -> bool:
        """True if the checkpoint of the newest report is kept.

        A trial that continued after its checkpoint was kept has an older one.
        """
        tokens = self.checkpoint_tokens
        return tokens is not None and tokens == self.metrics.get("tokens")

    @property
    def budget_tokens(self) -> int:
        """Training tokens of the complete budget; 0 for a new run, which has no parameters yet."""
        texts = [self.parameters.get(name, "0") for name in _FACTORS]
        return math.prod(int(text) if _WHOLE.fullmatch(text) else 0 for text in texts)

    def loss(self, metric: str) -> float:
        """Newest value of a metric; infinity if there is none or the trial diverged."""
        value = self.metrics.get(metric, math.inf)
        return math.inf if math.isnan(value) or self.status == DIVERGED else value

    def rank(self, metric: str) -> float:
        """Newest value of a metric with the sign that makes smaller better; infinity if none."""
        value = self.loss(metric)
        return sign_of(metric) * value if value < math.inf else value


@dataclass(frozen=True)
class SearchRecord:
    """One recorded search.

    Attributes:
        run_id: of its parent run.
        experiment_id: of MLflow.
        name: unique in its store.
        status: running, finished, interrupted or failed.
        started: seconds since the epoch.
        best_run: run of the best trial, if there is one.
        metrics: numbers of the summary.
        tags: all tags of the parent run.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    started: float
    best_run: str | None
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def metric(self) -> str:
        """The objective by which the trials are ranked."""
        return self.tags.get(Tag.METRIC, "val_loss")


def parameters_of(spec: TrialSpec) -> dict[str, str]:
    """Return the parameters of a trial's run, as MLflow keeps them."""
    a, target = spec.architecture, spec.architecture.target
    values = {
        **spec.rows,
        **a.model_dump(exclude={"target"}),
        **({name: getattr(a, name) for name in LORA_ENTRIES} if a.lora_rank else {}),
        **({} if target is None else {"target": target.model_dump_json()}),
        "micro_batch": spec.micro_batch,
        "seed": spec.seed,
    }
    return {name: str(value) for name, value in values.items()}


def drawn(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials of a search that neither confirm another one nor cool down from it.

    A cool-down is shorter than its parent; a trial that continues another one is as long.
    """
    steps = {trial.number: trial.parameters.get("total_steps") for trial in trials}
    return [
        trial
        for trial in trials
        if trial.confirms is None
        and (trial.parent is None or steps[trial.number] == steps.get(trial.parent))
    ]


def search_record(run: Run) -> SearchRecord:
    """Read a search from its parent run.

    Raises:
        RecordError: if a value is not of the kind that tuner records.
    """
    tags, started = _texts(run.data.tags), run.info.start_time
    if not isinstance(started, int) or not 0 <= started < _END_OF_TIME:
        raise _damaged(run, "start time", started)
    return SearchRecord(
        run_id=str(run.info.run_id),
        experiment_id=str(run.info.experiment_id),
        name=tags.get(Tag.SEARCH, str(run.info.run_name)),
        status=tags.get(Tag.STATUS, "running"),
        started=started / 1000,
        best_run=tags.get(Tag.BEST),
        metrics={k: v for k, v in _metrics(run).items() if not k.startswith(SYSTEM)},
        tags=tags,
    )


def trial_record(run: Run) -> TrialRecord:
    """Read a trial from its run.

    Raises:
        RecordError: if a value is not of the kind that tuner records.
    """
    tags = _texts(run.data.tags)
    if not str(run.info.run_id).isalnum():  # it becomes a part of commands
        raise _damaged(run, "id", run.info.run_id)
    number = _number(run, tags, Tag.TRIAL)
    return TrialRecord(
        run_id=str(run.info.run_id),
        number=-1 if number is None else number,
        search=tags.get(Tag.SEARCH, ""),
        status=tags.get(Tag.STATUS, "running"),
        parameters=_texts(run.data.params),
        metrics=_metrics(run),
        environment={name: tags.get(name, "unknown") for name in ENVIRONMENT},
        parent=_number(run, tags, Tag.PARENT_TRIAL),
        checkpoint_tokens=_number(run, tags, Tag.STATE),
        confirms=_number(run, tags, Tag.CONFIRMS),
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return tags or parameters; a column of SQLite may hold anything in place of a text."""
    return {str(name): str(value) for name, value in values.items() if value is not None}


def _metrics(run: Run) -> dict[str, float]:
    for name, value in run.data.metrics.items():
        if not _is_number(value):
            raise _damaged(run, f"value of {shown(name)}", value)
    return {str(name): float(value) for name, value in run.data.metrics.items()}


def _number(run: Run, tags: Mapping[str, str], tag: str) -> int | None:
    text = tags.get(tag)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text):
        raise _damaged(run, f"tag {tag}", text)
    return int(text)


def _is_number(value: object) -> bool:
    """Return True for a number of a store; a column of SQLite may hold a text in its place."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST)


def _damaged(run: Run, what: str, value: object) -> RecordError:
    return RecordError(
        f"the run {short_run(str(run.info.run_id))} is damaged: {shown(value)} cannot be its "
        f"{what}; delete the run in MLflow, or restore the store"
    )
