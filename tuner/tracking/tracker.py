"""Records a search in MLflow: one thread, in batches, never in the way of training.

Calls leave a note and return; a writer thread sends what has gathered every second. What the store
refuses is kept and tried again, and what is said twice is stored once: runs that the store has are
found, those that it made although its answer was lost as well; reports go in order and each as a
whole, so that a run that has one has all before it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from model.engine.report import Report
from model.spec.trial import TrialSpec
from tuner.errors import StoreError
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import NO_TAGS, Runs, RunStart, TimedReport
from tuner.tracking.store import reason_of
from tuner.tracking.tags import STATE_FILE, SystemMetrics

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_PERIOD_SECONDS = 1.0
_MOST_REPORTS = 100  # in one call; MLflow takes 1000 metrics
_MOST_FAILURES = 3  # of trials, before the store is left alone for a period
_PATIENCE_SECONDS = 30.0  # with a store that takes nothing
_BYTES_PER_SECOND = 5e6  # of a file, at least


@dataclass
class _Trial:
    """A trial on its way to the store; only the writer thread changes it."""

    number: int
    birth: RunStart | None = None  # until the store has all of it
    run_id: str | None = None
    told: list[TimedReport] = field(default_factory=list)
    tokens: float = -1  # at the newest report that the store has
    status: str = "running"  # what the store is to say
    status_ms: int = 0
    stored_status: str | None = None


@dataclass
class _Task:
    """Something to be done once, for which a caller waits."""

    action: Callable[[], None]
    done: threading.Event = field(default_factory=threading.Event)


class Tracker:
    """Records one search.

    Args:
        uri: of the MLflow store.
        artifacts: where a local store keeps artifacts.
        experiment: name of the MLflow experiment, the name of the space.
        search: unique name of the search.
        tags: of the parent run.
        resume: go on with the runs that the store has of this search, and make those it has not.
        inputs: what is trained on, and measured on (`datasets.dataset_inputs`).

    Attributes:
        runs: the search in the store.
        experiment_id: of MLflow.
        run_id: of the parent run.
        num_created: runs made for trials.
        num_metrics: metrics sent.
        num_endings: endings of trials sent.

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
        resume: bool = False,
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        self.uri, self._search = uri, search
        self.runs = Runs(uri, artifacts, experiment, search, tags, resume=resume, inputs=inputs)
        self.experiment_id, self.run_id = self.runs.experiment_id, self.runs.run_id
        self.num_created = self.num_metrics = self.num_endings = 0
        self._is_closed = False
        self._trials: dict[int, _Trial] = {}
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # the rest is the writer's
        self._due: dict[int, _Trial] = {}
        self._tasks = [_Task(partial(self.runs.log_inputs, self.run_id))]
        self._vitals: list[SystemMetrics] = []
        self._flushes: list[_Task] = []
        self._is_parent_running = self.runs.found is None
        self._stored: Mapping[int, TrialRecord] = {}
        self._is_stale = resume  # the store may have runs that `_stored` has not
        self._is_doubtful = False  # a run may have been made twice
        self._last_error: Exception | None = None
        self._progress = 0
        threading.Thread(target=self._write, name="tracking", daemon=True).start()

    @property
    def problem(self) -> str | None:
        """Why the store does not take what it is told, if so; it is tried again every second."""
        return self._reason() if self._last_error else None

    # notes ------------------------------------------------------------------------------------

    def start_trial(
        self,
        number: int,
        spec: TrialSpec,
        environment: Mapping[str, str],
        time_ms: int | None = None,
        tags: Mapping[str, str] = NO_TAGS,
    ) -> None:
        """A trial has begun, or one that was parked or interrupted goes on.

        Args:
            number: of the trial.
            spec: what it trains.
            environment: device and versions.
            time_ms: when; now, if the journal does not say.
            tags: others that its run gets (`runs.trial_tags`).
        """
        birth = RunStart(spec, environment, time_ms or _now_ms(), tags)
        self.add_trial(number, birth, (), "running", birth.time_ms)

    def report(self, number: int, report: Report, time_ms: int | None = None) -> None:
        """A trial has reported."""
        told = [TimedReport(report, time_ms or _now_ms())]
        self._notes.put(partial(self._note, self._trials[number], told))

    def end_trial(self, number: int, status: str, time_ms: int | None = None) -> None:
        """A trial has ended; `status` is what the user reads. A later one replaces it."""
        trial = self._trials[number]
        self._notes.put(partial(self._note, trial, [], status, time_ms or _now_ms()))

    def note_vitals(self, vitals: SystemMetrics) -> None:
        """Workers were measured."""
        self._notes.put(partial(self._vitals.append, vitals))

    def add_trial(
        self, number: int, birth: RunStart, told: Iterable[TimedReport], status: str, status_ms: int
    ) -> None:
        """All that is known of a trial, some of which the store may have.

        Args:
            number: of the trial.
            birth: of its run, if the store has none.
            told: its reports.
            status: how it stands: `running`, or how it ended.
            status_ms: since when.
        """
        trial = self._trials.setdefault(number, _Trial(number))
        self._notes.put(partial(self._note, trial, list(told), status, status_ms, birth))

    def run_of(self, number: int) -> str | None:
        """The run id of a trial, once it has one."""
        trial = self._trials.get(number)
        return trial.run_id if trial else None

    # what is waited for -----------------------------------------------------------------------

    def add_artifact(self, path: Path, name: str | None = None) -> None:
        """Attach a file to the parent run, in the folder `name`.

        Raises:
            StoreError: if the store takes nothing for half a minute.
        """
        seconds = path.stat().st_size / _BYTES_PER_SECOND
        self._do(partial(self.runs.attach, path, name), seconds)

    def keep_state(self, number: int, path: Path, tokens: int) -> None:
        """Attach the state of a trial, all of whose reports have been sent, to its run.

        Raises:
            StoreError: if the store takes nothing for half a minute.
        """
        run_id = self.run_of(number)
        assert run_id is not None
        seconds = path.stat().st_size / _BYTES_PER_SECOND
        with TemporaryDirectory() as folder:
            copy = Path(folder, Path(STATE_FILE).name)
            copy.symlink_to(path.resolve())
            self._do(partial(self.runs.attach_state, run_id, copy, tokens), seconds)

    def add_text(self, text: str, name: str) -> None:
        """Attach a text to the parent run, as a file of this name.

        Raises:
            StoreError: if the store takes nothing for half a minute.
        """
        self._do(partial(self.runs.attach_text, text, name))

    def flush(self) -> None:
        """Wait until everything said so far is in the store.

        Raises:
            StoreError: if the store takes nothing for half a minute.
        """
        task = _Task(lambda: None)
        self._notes.put(partial(self._flushes.append, task))
        self._wait(task)

    def finish(
        self,
        status: str,
        metrics: Mapping[str, float],
        best_run: str | None,
        time_ms: int | None = None,
    ) -> None:
        """Flush, close the parent run with the summary, and end the writer thread.

        Raises:
            StoreError: if the store takes nothing for half a minute.
        """
        now = time_ms or _now_ms()

        def close() -> None:
            self.runs.sum_up(metrics, best_run, now)
            self.runs.set_status(self.run_id, status, now)

        try:
            self.flush()
            self._do(close)
        finally:
            self.close()

    def close(self) -> None:
        """End the writer thread; what it has not sent stays unsent."""
        self._is_closed = True

    def _do(self, action: Callable[[], None], seconds: float = 0.0) -> None:
        task = _Task(action)
        self._notes.put(partial(self._tasks.append, task))
        try:
            self._wait(task, seconds)
        except BaseException:
            self._notes.put(partial(self._forget, task))
            raise

    def _wait(self, task: _Task, seconds: float = 0.0) -> None:
        progress = -1
        while progress < self._progress:
            progress = self._progress
            if task.done.wait(_PATIENCE_SECONDS + seconds):
                return
        raise StoreError(self._reason())

    def _reason(self) -> str:
        reason = reason_of(self._last_error) if self._last_error else "it does not answer"
        return (
            f"the tracking store {self.uri} does not take all of the search {self._search}: "
            f"{reason}; 'tuner sync {self._search}' sends it later"
        )

    # the writer thread ------------------------------------------------------------------------

    def _write(self) -> None:
        while not self._is_closed:
            self._gather()
            self._send()
            if not self._due and not self._tasks and not self._vitals:
                for task in self._flushes:
                    task.done.set()
                self._flushes.clear()

    def _gather(self) -> None:
        """Take notes for a second, or until somebody waits for a store that answers."""
        until = time.monotonic() + _PERIOD_SECONDS
        while (left := until - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._notes.get(timeout=left)()
            is_awaited = self._tasks or self._flushes
            if is_awaited and self._notes.empty() and self._last_error is None:
                return

    def _note(
        self,
        trial: _Trial,
        told: list[TimedReport],
        status: str | None = None,
        status_ms: int = 0,
        birth: RunStart | None = None,
    ) -> None:
        self._due[trial.number] = trial
        trial.told += told
        if birth is not None and trial.run_id is None:
            trial.birth = trial.birth or birth
        if status is not None:
            trial.status, trial.status_ms = status, status_ms
        if status == "running" and not self._is_parent_running:
            self._is_parent_running = True
            reopen = partial(self.runs.set_status, self.run_id, "running", status_ms)
            self._tasks.append(_Task(reopen))

    def _forget(self, task: _Task) -> None:
        with suppress(ValueError):
            self._tasks.remove(task)

    def _send(self) -> None:
        """Send what has gathered; what one trial cannot get rid of does not hold up the others."""
        failures: list[Exception] = []
        failed: dict[int, _Trial] = {}
        while self._tasks and self._try(self._tasks[0].action, failures):
            self._tasks.pop(0).done.set()
        for trial in list(self._due.values()):
            if len(failures) >= _MOST_FAILURES:
                break
            del self._due[trial.number]
            if not self._try(partial(self._send_trial, trial), failures):
                failed[trial.number] = trial
        self._due |= failed  # behind the others
        if self._vitals and self._try(partial(self.runs.log_vitals, self._vitals), failures):
            self._vitals.clear()
        if self._is_doubtful and not self._due:
            self._try(self._delete_doubles, failures)
        if not failures:
            self._last_error = None

    def _try(self, action: Callable[[], None], failures: list[Exception]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a store raises, try again
            self._last_error = error
            failures.append(error)
            return False
        self._progress += 1
        return True

    def _send_trial(self, trial: _Trial) -> None:
        run_id = trial.run_id or self._find(trial) or self._create(trial)
        if trial.birth is not None:
            self.runs.describe(run_id, trial.birth.spec)
            trial.birth = None
        trial.told = [told for told in trial.told if told.report.tokens > trial.tokens]
        while batch := trial.told[:_MOST_REPORTS]:
            self.num_metrics += self.runs.log(run_id, batch)
            trial.tokens = batch[-1].report.tokens
            del trial.told[: len(batch)]
            self._progress += 1
        if trial.status != trial.stored_status:
            self.runs.set_status(run_id, trial.status, trial.status_ms)
            trial.stored_status = trial.status
            self.num_endings += trial.status != "running"

    def _find(self, trial: _Trial) -> str | None:
        """The run that the store has of a trial already."""
        if self._is_stale:
            children = self.runs.children()
            self._stored = {stored.number: stored for stored in reversed(children)}
            self._is_stale = False
            self._is_doubtful |= len(self._stored) < len(children)
        stored = self._stored.get(trial.number)
        if stored is None:
            return None
        trial.run_id, trial.stored_status = stored.run_id, stored.status
        trial.tokens = stored.metrics.get("tokens", -1)
        if stored.parameters:
            trial.birth = None
        return trial.run_id

    def _create(self, trial: _Trial) -> str:
        assert trial.birth is not None
        try:
            trial.run_id = self.runs.create(trial.number, trial.birth)
        except Exception:  # a server that hangs may make it nevertheless, sooner or later
            self._is_stale = self._is_doubtful = True
            raise
        trial.stored_status = "running"
        self.num_created += 1
        return trial.run_id

    def _delete_doubles(self) -> None:
        for stored in self.runs.children():
            kept = self._trials.get(stored.number)
            if kept and kept.run_id != stored.run_id and not stored.parameters:
                self.runs.delete(stored.run_id)
        self._is_doubtful = False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
