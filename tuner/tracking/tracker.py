"""Records a search in MLflow: one thread sends batches and never delays the training.

Each call puts a note into a queue and returns. A writer thread sends all collected data every
second. Data that the store refuses is kept and sent again, and is stored exactly once:

- Before a run is created, the runs that the store already has are searched for it. This also finds
  a run that the store created although its answer was lost.
- Reports are sent in order, each report in one call. A run that has a report has all earlier ones.
- MLflow ignores a metric that it has with the same step, time and value.

The states of a trial's run, and the flags of the tracker that guard them:

    no run id ──_find: the store has a run of this trial──────────▶ run id is known
        │ ▲                                                             ▲  │
        │ └──── next period ◀── _create raised: the store may have the  │  │
        │                       run, now or later; both flags are set   │  │
        └───────_find: none ──▶ _create succeeded ──────────────────────┘  │
                                                                           ▼
    all is stored ◀── parameters, reports and status sent ◀── inputs and specification sent

The last arrow is one call of MLflow, or more for many reports; a call before sets the state. Each
arrow that raises is tried again in the next period. `_must_read_runs` makes `_find` read the runs
of the store once more. `_may_have_duplicates` stays set until all trials are stored, because a late
answer may make a run; then runs without parameters whose number another has are deleted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from model.engine.report import Report
from model.spec.trial import TrialSpec
from tuner.errors import StoreError
from tuner.secrets import masked
from tuner.tracking.backlog import Task, UnsentTrial
from tuner.tracking.metrics import SystemMetrics
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import NO_TAGS, Runs, RunSettings, RunStart, TimedReport
from tuner.tracking.store import reason_of
from tuner.tracking.tags import CHECKPOINT_FILE

_PERIOD_SECONDS = 1.0
# In one call: MLflow would divide more than 1000 metrics, parameters and tags, the status first.
_MOST_REPORTS = 90
_MOST_FAILURES = 3  # of trials, before the writer waits for the next period
_PATIENCE_SECONDS = 30.0  # without any progress of the store
_BYTES_PER_SECOND = 5e6  # slowest upload of a file


class Tracker:
    """Records one search.

    Args:
        settings: place and description of the search.

    Attributes:
        runs: the search in the store.
        experiment_id: of MLflow.
        run_id: run id of the parent run.
        num_created: runs created for trials.
        num_metrics: metrics sent.
        num_endings: outcomes of trials sent.

    Raises:
        StoreError: if the store cannot be used.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._may_write, self._note_unsynced = settings.may_write, settings.note_unsynced
        self.uri, self._search = settings.uri, settings.search
        self.runs = Runs(settings)
        self.experiment_id, self.run_id = self.runs.experiment_id, self.runs.run_id
        self.num_created = self.num_metrics = self.num_endings = 0
        self._is_closed = False
        self._trials: dict[int, UnsentTrial] = {}
        self._notes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # only the writer thread uses the attributes below, so that they need no lock
        self._unsent: dict[int, UnsentTrial] = {}
        self._tasks = [Task(partial(self.runs.log_inputs, self.run_id))]
        self._system_metrics: list[SystemMetrics] = []
        self._flushes: list[Task] = []
        self._is_parent_running = self.runs.previous is None
        self._known_runs: Mapping[int, TrialRecord] = {}  # runs of trials, as last read
        self._must_read_runs = settings.resume  # the store may have runs that are not known
        self._may_have_duplicates = False  # the store may have two runs of one trial
        self._last_error: Exception | None = None
        self._progress, self._noted = 0, -1
        threading.Thread(target=self._write, name="tracking", daemon=True).start()

    @property
    def problem(self) -> str | None:
        """Reason why the store refuses data at present; the writer tries again every second."""
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
        """Note that a trial has started, or that a paused or interrupted one continues.

        Args:
            number: number of the trial.
            spec: specification of the trial.
            environment: device and versions.
            time_ms: time of the start in the journal; by default now.
            tags: further tags of its run (`runs.trial_tags`).
        """
        start = RunStart(spec, environment, time_ms or _now_ms(), tags)
        self.add_trial(number, start, (), "running", start.time_ms)

    def log_report(self, number: int, report: Report, time_ms: int | None = None) -> None:
        """Note a report of a trial."""
        reports = [TimedReport(report, time_ms or _now_ms())]
        self._notes.put(partial(self._update, self._trials[number], reports))

    def end_trial(self, number: int, status: str, time_ms: int | None = None) -> None:
        """Note the outcome of a trial; a later outcome replaces it."""
        trial = self._trials[number]
        self._notes.put(partial(self._update, trial, [], status, time_ms or _now_ms()))

    def log_system_metrics(self, metrics: SystemMetrics) -> None:
        """Note the load of the workers."""
        self._notes.put(partial(self._system_metrics.append, metrics))

    def add_trial(
        self,
        number: int,
        start: RunStart,
        reports: Iterable[TimedReport],
        status: str,
        status_ms: int,
    ) -> None:
        """Note all data of a trial, of which the store may have a part.

        Args:
            number: number of the trial.
            start: contents of its run, if the store has no run.
            reports: its reports.
            status: `running`, or the outcome.
            status_ms: time since which the trial has this status.
        """
        trial = self._trials.setdefault(number, UnsentTrial(number))
        self._notes.put(partial(self._update, trial, list(reports), status, status_ms, start))

    def run_of(self, number: int) -> str | None:
        """Return the run id of a trial; None before its run is created."""
        trial = self._trials.get(number)
        return trial.run_id if trial else None

    # calls that wait for the store ------------------------------------------------------------

    def add_artifact(
        self, path: Path, folder: str | None = None, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        """Attach a file to the parent run, in a folder of its artifacts, and set tags of the run.

        Raises:
            StoreError: if the store makes no progress for half a minute.
        """
        seconds = path.stat().st_size / _BYTES_PER_SECOND
        self._do(partial(self.runs.attach, path, folder, tags), seconds)

    def keep_checkpoint(self, number: int, path: Path, tokens: int) -> None:
        """Attach the checkpoint of a trial to its run; all its reports must have been sent.

        Raises:
            StoreError: if the store makes no progress for half a minute.
        """
        run_id = self.run_of(number)
        assert run_id is not None
        seconds = path.stat().st_size / _BYTES_PER_SECOND
        with TemporaryDirectory() as folder:
            # MLflow names an artifact like the file, so that the file needs the artifact's name
            link = Path(folder, Path(CHECKPOINT_FILE).name)
            link.symlink_to(path.resolve())
            self._do(partial(self.runs.attach_checkpoint, run_id, link, tokens), seconds)

    def add_text(self, text: str, name: str) -> None:
        """Attach a text to the parent run as a file.

        Raises:
            StoreError: if the store makes no progress for half a minute.
        """
        self._do(partial(self.runs.attach_text, text, name))

    def flush(self) -> None:
        """Wait until all noted data is in the store.

        Raises:
            StoreError: if the store makes no progress for half a minute.
        """
        task = Task(lambda: None)
        self._notes.put(partial(self._flushes.append, task))
        self._wait(task)

    def finish(
        self, status: str, metrics: Mapping[str, float], best_run: str | None,
        time_ms: int | None = None, tags: Mapping[str, str] = NO_TAGS,
    ) -> None:  # fmt: skip
        """Flush, close the parent run with the summary and tags, and end the writer thread.

        Raises:
            StoreError: if the store makes no progress for half a minute.
        """
        now = time_ms or _now_ms()

        def close() -> None:
            self.runs.log_summary(metrics, best_run, now, tags)
            self.runs.set_status(self.run_id, status, now)

        try:
            self.flush()
            self._do(close)
        finally:
            self.close()

    def close(self) -> None:
        """End the writer thread without sending the remaining data."""
        self._is_closed = True

    def _do(self, action: Callable[[], None], seconds: float = 0.0) -> None:
        """Let the writer thread do an action, and wait; `seconds` is added to the patience."""
        task = Task(action)
        self._notes.put(partial(self._tasks.append, task))
        try:
            self._wait(task, seconds)
        except BaseException:
            self._notes.put(partial(self._cancel, task))
            raise

    def _wait(self, task: Task, seconds: float = 0.0) -> None:
        """Wait for a task as long as the store makes progress with anything."""
        progress = -1
        while progress < self._progress:
            progress = self._progress
            if task.done.wait(_PATIENCE_SECONDS + seconds):
                return
        raise StoreError(self._reason())

    def _reason(self) -> str:
        reason = reason_of(self._last_error) if self._last_error else "it does not answer"
        return (
            f"the tracking store {masked(self.uri)} does not take all of the search "
            f"{self._search}: {reason}; 'tuner sync {self._search}' sends it later"
        )

    # the writer thread ------------------------------------------------------------------------

    def _write(self) -> None:
        while not self._is_closed:
            self._collect()
            self._send()
            if not self._unsent and not self._tasks and not self._system_metrics:
                for task in self._flushes:
                    task.done.set()
                self._flushes.clear()
            self._note_backlog()
        with suppress(queue.Empty):
            while True:
                self._notes.get_nowait()()
        self._note_backlog()

    def _collect(self) -> None:
        """Take notes for a second; shorter if a caller waits and the store answers."""
        until = time.monotonic() + _PERIOD_SECONDS
        while (left := until - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._notes.get(timeout=left)()
            is_awaited = self._tasks or self._flushes
            if is_awaited and self._notes.empty() and self._last_error is None:
                return

    def _note_backlog(self) -> None:
        events = sum(trial.num_events for trial in self._unsent.values())
        if events != self._noted and self._may_write():
            self._note_unsynced(events)
            self._noted = events

    def _update(
        self,
        trial: UnsentTrial,
        reports: list[TimedReport],
        status: str | None = None,
        status_ms: int = 0,
        start: RunStart | None = None,
    ) -> None:
        self._unsent[trial.number] = trial
        trial.reports += reports
        if start is not None and trial.run_id is None:
            trial.start = trial.start or start
        if status is not None:
            trial.status, trial.status_ms = status, status_ms
        if status == "running" and not self._is_parent_running:
            # a resumed search runs again when its first trial does
            self._is_parent_running = True
            reopen = partial(self.runs.set_status, self.run_id, "running", status_ms)
            self._tasks.append(Task(reopen))

    def _cancel(self, task: Task) -> None:
        with suppress(ValueError):
            self._tasks.remove(task)

    def _send(self) -> None:
        """Send the collected data; a trial that the store refuses does not delay the others."""
        failures: list[Exception] = []
        refused: dict[int, UnsentTrial] = {}
        while self._tasks and self._try(self._tasks[0].action, failures):
            self._tasks.pop(0).done.set()
        for trial in list(self._unsent.values()):
            if len(failures) >= _MOST_FAILURES:
                break
            del self._unsent[trial.number]
            if not self._try(partial(self._send_trial, trial), failures):
                refused[trial.number] = trial
        self._unsent |= refused  # after the others
        metrics = self._system_metrics
        if metrics and self._try(partial(self.runs.log_system_metrics, metrics), failures):
            metrics.clear()
        if self._may_have_duplicates and not self._unsent:
            self._try(self._delete_duplicates, failures)
        if not failures:
            self._last_error = None

    def _try(self, action: Callable[[], None], failures: list[Exception]) -> bool:
        """Do an action; return True if the store took it, else note the failure."""
        if not self._may_write():
            self.close()
            return False
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a store raises, try again
            self._last_error = error
            failures.append(error)
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self._progress += 1

    def _send_trial(self, trial: UnsentTrial) -> None:
        """Take a trial along the arrows of the drawing above, up to the first that raises."""
        run_id = trial.run_id or self._find(trial) or self._create(trial)
        if trial.start is not None:
            self.runs.attach_spec(run_id, trial.start.spec)
        trial.reports = [r for r in trial.reports if r.report.tokens > trial.stored_tokens]
        while trial.start is not None or trial.reports or trial.status != trial.stored_status:
            self._send_batch(run_id, trial)
            self._progress += 1

    def _send_batch(self, run_id: str, trial: UnsentTrial) -> None:
        """Send some reports, with the parameters before the first and the status after the last."""
        batch = trial.reports[:_MOST_REPORTS]
        spec = None if trial.start is None else trial.start.spec
        is_last = len(batch) == len(trial.reports)
        status = trial.status if is_last and trial.status != trial.stored_status else None
        if status is not None:
            self.runs.set_state(run_id, status, trial.status_ms)
        self.num_metrics += self.runs.log(run_id, batch, spec, status)
        trial.start = None
        if batch:
            trial.stored_tokens = batch[-1].report.tokens
            del trial.reports[: len(batch)]
        if status is not None:
            trial.stored_status = status
            self.num_endings += status != "running"

    def _find(self, trial: UnsentTrial) -> str | None:
        """Return the run that the store already has of a trial, and note which data it has."""
        if self._must_read_runs:  # only the first time progress: a store may refuse writes for ever
            children = self.runs.children(*[self._advance] * (not self._known_runs))
            # described runs come first, so that in reverse they replace their duplicates
            self._known_runs = {run.number: run for run in reversed(children)}
            self._must_read_runs = False
            self._may_have_duplicates |= len(self._known_runs) < len(children)
        run = self._known_runs.get(trial.number)
        if run is None:
            return None
        trial.run_id, trial.stored_status = run.run_id, run.status
        trial.stored_tokens = run.metrics.get("tokens", -1)
        if run.parameters:  # written last in a description
            trial.start = None
        return trial.run_id

    def _create(self, trial: UnsentTrial) -> str:
        assert trial.start is not None
        try:
            trial.run_id = self.runs.create(trial.number, trial.start)
        except Exception:  # a server that hangs may create the run nevertheless, sooner or later
            self._must_read_runs = self._may_have_duplicates = True
            raise
        trial.stored_status = "running"
        self.num_created += 1
        return trial.run_id

    def _delete_duplicates(self) -> None:
        for run in self.runs.children():
            trial = self._trials.get(run.number)
            if trial and trial.run_id != run.run_id and not run.parameters:
                self.runs.delete(run.run_id)
        self._may_have_duplicates = False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
