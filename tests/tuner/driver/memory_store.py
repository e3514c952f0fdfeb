"""A client of MLflow whose store is in memory, as far as the record of a search needs it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_TAG = re.compile(r"tags\.`([^`]+)` = '([^']*)'")


@dataclass
class MemoryRun:
    """A run of the store."""

    run_id: str
    experiment_id: str
    name: str
    started: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, int, int, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "RUNNING"
    is_deleted: bool = False

    def steps(self, metric: str) -> list[int]:
        """Return the steps of a metric, in the order in which they were written."""
        return [step for key, step, _, _ in self.metrics if key == metric]

    @property
    def as_read(self) -> Any:
        """The run as a client reads it."""
        newest = {key: float(value) for key, _, _, value in self.metrics}
        return SimpleNamespace(
            info=SimpleNamespace(
                run_id=self.run_id, run_name=self.name, experiment_id=self.experiment_id,
                start_time=self.started, artifact_uri=f"memory:/{self.run_id}", status=self.state,
                lifecycle_stage="deleted" if self.is_deleted else "active",
            ),
            data=SimpleNamespace(tags=dict(self.tags), params=dict(self.params), metrics=newest),
        )  # fmt: skip


class MemoryStore:
    """The client; a metric that a run has with the same step, time and value is ignored.

    Attributes:
        runs: runs by id.
    """

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self._experiments: dict[str, str] = {}
        self._ids = itertools.count(1)

    @property
    def active(self) -> list[MemoryRun]:
        """The runs that were not deleted."""
        return [run for run in self.runs.values() if not run.is_deleted]

    # reading -----------------------------------------------------------------------------------

    def get_experiment_by_name(self, name: str) -> Any:
        """Return an experiment; None if there is none."""
        experiment_id = self._experiments.get(name)
        return experiment_id and SimpleNamespace(
            experiment_id=experiment_id, artifact_location="memory:/"
        )

    def search_experiments(self) -> list[Any]:
        """Return all experiments."""
        return [SimpleNamespace(experiment_id=each) for each in self._experiments.values()]

    def search_runs(self, experiments: Sequence[str], condition: str, **options: Any) -> Any:
        """Return the runs whose tags meet a condition, newest first, in one page."""
        tags = _TAG.findall(condition)
        runs = [
            run.as_read for run in self.active
            if run.experiment_id in experiments
            and all(run.tags.get(name) == value for name, value in tags)
        ]  # fmt: skip

        class Page(list[Any]):
            token = None

        return Page(reversed(runs))

    def get_run(self, run_id: str) -> Any:
        """Return a run."""
        return self.runs[run_id].as_read

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
        """Return the files of a run."""
        files = self.runs[run_id].files.items()
        return [SimpleNamespace(path=name, file_size=len(data)) for name, data in files]

    # writing -----------------------------------------------------------------------------------

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        """Create an experiment; return its id."""
        return self._experiments.setdefault(name, str(len(self._experiments) + 1))

    def create_run(
        self, experiment_id: str, start_time: int = 1, tags: Any = None, run_name: str = ""
    ) -> Any:
        """Create a run."""
        run_id = f"{next(self._ids):032x}"
        self.runs[run_id] = MemoryRun(run_id, experiment_id, run_name, start_time, dict(tags))
        return self.runs[run_id].as_read

    def log_batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Write parameters, metrics and tags."""
        run = self.runs[run_id]
        for param in params:
            assert run.params.setdefault(param.key, param.value) == param.value
        for metric in metrics:
            row = (metric.key, metric.step, metric.timestamp, repr(metric.value))
            if row not in run.metrics:
                run.metrics.append(row)
        run.tags.update({tag.key: tag.value for tag in tags})

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Attach a text."""
        self.runs[run_id].files[name] = text.encode()

    def log_artifact(self, run_id: str, path: str, folder: str | None = None) -> None:
        """Attach a file."""
        name = Path(path).name if folder is None else f"{folder}/{Path(path).name}"
        self.runs[run_id].files[name] = Path(path).read_bytes()

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        """Write a tag."""
        self.runs[run_id].tags[name] = value

    def update_run(self, run_id: str, status: str) -> None:
        """Set the state of a run."""
        self.runs[run_id].state = status

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        """Set the state of a run, and the time of its end."""
        self.runs[run_id].state = status

    def delete_run(self, run_id: str) -> None:
        """Delete a run."""
        self.runs[run_id].is_deleted = True
