"""A search and a trial as the tracking store records them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.conductor.outcome import DIVERGED, Outcome
from tuner.space.objective import sign_of
from tuner.tracking.metrics import SYSTEM
from tuner.tracking.tags import BEFORE, ENVIRONMENT, Tag

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class TrialRecord:
    """One recorded trial.

    Attributes:
        run_id: of MLflow.
        number: number in its search, counted from 0.
        search: name of its search.
        status: finished, stopped at report n, diverged, failed or running.
        parameters: name → text, as MLflow keeps them.
        metrics: the newest value of each curve.
        environment: device and versions it ran with.
        artifact_uri: of MLflow.
        spec_hash: of its specification.
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
    artifact_uri: str
    spec_hash: str = ""
    parent: int | None = None
    confirms: int | None = None
    checkpoint_tokens: int | None = None

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


def search_record(run: Run) -> SearchRecord:
    """Read a search from its parent run."""
    tags: dict[str, Any] = dict(run.data.tags)
    return SearchRecord(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=tags.get(Tag.SEARCH, run.info.run_name),
        status=tags.get(Tag.STATUS, "running"),
        started=run.info.start_time / 1000,
        best_run=tags.get(Tag.BEST),
        metrics={k: v for k, v in run.data.metrics.items() if not k.startswith(SYSTEM)},
        tags=tags,
    )


def trial_record(run: Run) -> TrialRecord:
    """Read a trial from its run."""
    tags = run.data.tags
    return TrialRecord(
        run_id=run.info.run_id,
        number=int(tags.get(Tag.TRIAL, -1)),
        search=tags.get(Tag.SEARCH, ""),
        status=tags.get(Tag.STATUS, "running"),
        parameters=dict(run.data.params),
        metrics=dict(run.data.metrics),
        environment={name: tags.get(name, BEFORE.get(name, "unknown")) for name in ENVIRONMENT},
        artifact_uri=run.info.artifact_uri,
        spec_hash=tags.get(Tag.SPEC_HASH, ""),
        parent=_number(tags.get(Tag.PARENT_TRIAL)),
        checkpoint_tokens=_number(tags.get(Tag.STATE)),
        confirms=_number(tags.get(Tag.CONFIRMS)),
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
