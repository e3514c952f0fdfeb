"""Writes a search to MLflow: one thread, in batches, never in the way of training.

The search is a parent run and each trial a child run. Calls put events in a queue and return; a
writer thread sends what has gathered every second. What the store refuses is kept and tried again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.hyperparameters import SYMBOL_TABLE
from model.report import Report
from model.spec import TrialSpec
from tuner.errors import StoreError
from tuner.record import SPEC_FILE, Tag, open_client, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric

_PERIOD_SECONDS = 1.0
_MOST_METRICS = 1000  # in one call, a limit of MLflow
_PATIENCE_SECONDS = 30.0  # at the end, for a store that does not answer


@dataclass
class _Trial:
    """A trial on its way to the store."""

    number: int
    spec: TrialSpec
    environment: Mapping[str, str]
    started_ms: int
    run_id: str | None = None
    described: bool = False
    metrics: list[Metric] = field(default_factory=list)
    status: str | None = None  # to be written when the trial has ended
    ended_ms: int = 0
    closed: bool = False


class Tracker:
    """Records one search.

    Args:
        uri: of the MLflow store.
        artifacts: where a local store keeps artifacts.
        experiment: name of the MLflow experiment, the name of the space.
        search: unique name of the search.
        tags: of the parent run.

    Raises:
        StoreError: if the store cannot be used.
    """

    def __init__(
        self, uri: str, artifacts: Path, experiment: str, search: str, tags: Mapping[str, str]
    ) -> None:
        self.uri = uri
        self._client = open_client(uri)
        self._search = search
        with store_errors(uri):
            found = self._client.get_experiment_by_name(experiment)
            location = artifacts.as_uri() if uri.startswith("sqlite:") else None
            self.experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(experiment, artifact_location=location)
            )
            all_tags = {
                Tag.KIND: "search",
                Tag.SEARCH: search,
                Tag.STATUS: "running",
                Tag.SOURCE: "tuner search",
                **tags,
            }
            run = self._client.create_run(self.experiment_id, tags=all_tags, run_name=search)
        self.run_id: str = run.info.run_id
        self._trials: dict[int, _Trial] = {}
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._last_error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._thread.start()

    def add_artifact(self, path: Path, name: str | None = None) -> None:
        """Attach a file to the parent run.

        Raises:
            StoreError: if the store cannot be used.
        """
        with store_errors(self.uri):
            self._client.log_artifact(self.run_id, str(path), name)

    def add_text(self, text: str, name: str) -> None:
        """Attach a text to the parent run, as a file of this name."""
        with store_errors(self.uri):
            self._client.log_text(self.run_id, text, name)

    def start_trial(self, number: int, spec: TrialSpec, environment: Mapping[str, str]) -> None:
        """A trial has begun."""
        self._events.put(("start", _Trial(number, spec, environment, _now_ms())))

    def report(self, number: int, report: Report) -> None:
        """A trial has reported."""
        self._events.put(("report", (number, report, _now_ms())))

    def end_trial(self, number: int, status: str) -> None:
        """A trial has ended; `status` is what the user reads."""
        self._events.put(("end", (number, status, _now_ms())))

    def run_of(self, number: int) -> str | None:
        """The run id of a trial, once it has one."""
        trial = self._trials.get(number)
        return trial.run_id if trial else None

    def flush(self) -> None:
        """Wait until everything said so far is in the store.

        Raises:
            StoreError: if the store does not take it within half a minute.
        """
        self._ended.set()
        self._events.put(("wake", None))
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive() or self._unwritten():
            raise StoreError(
                f"the tracking store {self.uri} did not take the last metrics of the search "
                f"{self._search}: {self._last_error}"
            )

    def finish(self, status: str, metrics: Mapping[str, float], best_run: str | None) -> None:
        """Flush, and close the parent run with the summary.

        Raises:
            StoreError: if the store cannot be used.
        """
        from mlflow.entities import Metric, RunTag

        self.flush()
        now = _now_ms()
        tags = [RunTag(Tag.STATUS, status)]
        if best_run:
            tags.append(RunTag(Tag.BEST, best_run))
        with store_errors(self.uri):
            values = [Metric(name, value, now, 0) for name, value in metrics.items()]
            self._client.log_batch(self.run_id, values, tags=tags)
            outcome = "FINISHED" if status == "finished" else "FAILED"
            self._client.set_terminated(self.run_id, outcome)

    # the writer thread --------------------------------------------------------------------

    def _write(self) -> None:
        give_up = None
        while True:
            self._gather()
            self._send()
            if self._ended.is_set():
                give_up = give_up or time.monotonic() + _PATIENCE_SECONDS - 1
                if (self._events.empty() and not self._unwritten()) or time.monotonic() > give_up:
                    return

    def _gather(self) -> None:
        """Collect events for a second, or until the search ends."""
        until = time.monotonic() + _PERIOD_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                kind, event = self._events.get(timeout=left)
            except queue.Empty:
                return
            if kind == "start":
                self._trials[event.number] = event
            elif kind == "report":
                self._add_report(*event)
            elif kind == "end":
                number, status, ended_ms = event
                self._trials[number].status = status
                self._trials[number].ended_ms = ended_ms
            elif self._events.empty():
                return

    def _add_report(self, number: int, report: Report, now_ms: int) -> None:
        from mlflow.entities import Metric

        self._trials[number].metrics += [
            Metric(name, value, now_ms, report.step) for name, value in report.metrics().items()
        ]

    def _unwritten(self) -> bool:
        return any(t.run_id is None or t.metrics or not t.closed for t in self._trials.values())

    def _send(self) -> None:
        """Send what has gathered; what one trial cannot get rid of does not hold up the others."""
        for trial in self._trials.values():
            try:
                self._send_trial(trial)
            except Exception as error:  # noqa: BLE001 - whatever a store raises, try again
                self._last_error = error

    def _send_trial(self, trial: _Trial) -> None:
        if trial.run_id is None:
            self._create(trial)
        assert trial.run_id is not None
        if not trial.described:
            self._describe(trial, trial.run_id)
        while trial.metrics:
            batch = trial.metrics[:_MOST_METRICS]
            self._client.log_batch(trial.run_id, batch)
            del trial.metrics[: len(batch)]
        if trial.status is not None and not trial.closed:
            self._close(trial)

    def _create(self, trial: _Trial) -> None:
        spec = trial.spec
        tags = {
            Tag.PARENT: self.run_id,
            Tag.KIND: "trial",
            Tag.SOURCE: "tuner search",
            Tag.SEARCH: self._search,
            Tag.STATUS: "running",
            Tag.TRIAL: str(trial.number),
            Tag.SEED: str(spec.seed),
            Tag.SPEC_HASH: spec.hash,
            Tag.DATA: spec.data_fingerprint,
            Tag.TOKENIZER: spec.tokenizer_fingerprint,
            **trial.environment,
        }
        run = self._client.create_run(
            self.experiment_id,
            start_time=trial.started_ms,
            tags=tags,
            run_name=f"{self._search}/{trial.number:03d}",
        )
        trial.run_id = run.info.run_id

    def _describe(self, trial: _Trial, run_id: str) -> None:
        from mlflow.entities import Param

        spec = trial.spec
        parameters = {
            **{name: getattr(spec.hyperparameters, name) for name in SYMBOL_TABLE},
            **spec.architecture.model_dump(),
            "micro_batch": spec.micro_batch,
            "seed": spec.seed,
        }
        self._client.log_batch(
            run_id, params=[Param(name, str(value)) for name, value in parameters.items()]
        )
        self._client.log_text(run_id, spec.model_dump_json(indent=2), SPEC_FILE)
        trial.described = True

    def _close(self, trial: _Trial) -> None:
        assert trial.run_id is not None
        assert trial.status is not None
        self._client.set_tag(trial.run_id, Tag.STATUS, trial.status)
        good = trial.status == "finished" or trial.status.startswith("stopped")
        outcome = "FINISHED" if good else "FAILED"
        self._client.set_terminated(trial.run_id, outcome, trial.ended_ms)
        trial.closed = True


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
