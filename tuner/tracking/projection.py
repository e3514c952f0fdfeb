"""Records a search in MLflow: a projection of its journal, which stores each event exactly once.

Data that the store refuses is kept and sent again:

- Before a run is created, the runs that the store already has are searched for it. This also finds
  a run that the store created although its answer was lost. The run of the search is looked for
  when its creation has raised: its name was free before.
- Reports are sent in order, each report in one call. A run that has a report has all earlier ones.
- MLflow ignores a metric that it has with the same step, time and value.

The states of a trial's run, and the flags of the projection that guard them:

    no run id ──_find: the store has a run of this trial──────────▶ run id is known
        │ ▲                                                             ▲  │
        │ └──── next call ◀──── _create raised: the store may have the  │  │
        │                       run, now or later; both flags are set   │  │
        └───────_find: none ──▶ _create succeeded ──────────────────────┘  │
                                                                           ▼
    all is stored ◀── parameters, reports and status sent ◀── inputs and specification sent

The first call of `send` opens the store, which takes seconds in which trials may train already. If
the store cannot be used, the driver ends the search (`check_open`).

The last arrow is one call of MLflow, or more for many reports; a call before sets the state. Each
arrow that raises is tried again with the next call of `send`. `_must_read_runs` makes `_find` read
the runs of the store once more. `_may_have_duplicates` stays set until all trials are stored,
because a late answer may make a run; then runs without parameters whose number another has are
deleted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Self

from typing_extensions import override

from model.corpus.corpus import Corpus
from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.journal.events import (
    Reported,
    SearchBegun,
    SearchEdited,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEvent,
)
from tuner.journal.fold import JournaledTrial, Search
from tuner.journal.follower import Projection
from tuner.journal.lines import Entry
from tuner.texts.secrets import masked
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.metrics import PROGRESS, SystemMetrics
from tuner.tracking.parent import ParentRun, SearchFiles
from tuner.tracking.progress import progress_tags
from tuner.tracking.records import TrialRecord
from tuner.tracking.runs import Runs, RunSettings, RunStart, TimedReport, trial_tags
from tuner.tracking.store import reason_of
from tuner.tracking.tags import Tag

BYTES_PER_SECOND = 5e6  # slowest upload of a file, in which there is no progress
CURSOR = "mlflow"  # of a follower: how many events the store has
# In one call: MLflow would divide more than 1000 metrics, parameters and tags, the status first.
_MOST_REPORTS = 60
_MOST_FAILURES = 3  # of trials, before the next call of `send`


@dataclass
class _UnsentTrial:
    """Data of a trial that is not stored yet."""

    number: int
    start: RunStart | None = None  # None once its run is described
    run_id: str | None = None
    reports: list[TimedReport] = field(default_factory=list)
    stored_tokens: float = -1  # training tokens at the newest stored report
    status: str = "running"  # to be stored
    status_ms: int = 0
    stored_status: str | None = None


class MlflowProjection(Projection):
    """Records one search.

    Args:
        settings: place and description of the search.
        files: files of the search that its run gets.

    Attributes:
        num_created: runs created for trials.
        num_metrics: metrics sent.
        num_endings: outcomes of trials sent.
    """

    name = "the tracking store"
    period_seconds = 5.0

    def __init__(self, settings: RunSettings, files: SearchFiles) -> None:
        self._uri, self._name = settings.uri, settings.search
        self._settings, self._files = settings, files
        self._refusal: StoreError | None = None  # why the store could not be opened
        self.num_created = self.num_metrics = self.num_endings = 0
        self._search: Search | None = None
        self._digest = ""
        self._tasks: dict[str, Callable[[], None]] = {}  # of the parent, in this order
        self._trials: dict[int, _UnsentTrial] = {}
        self._unsent: dict[int, _UnsentTrial] = {}
        self._end: SessionEnded | None = None
        self._samples: deque[SystemMetrics] = deque()
        self._known_runs: Mapping[int, TrialRecord] = {}  # runs of trials, as last read
        self._must_read_runs = settings.resume  # the store may have runs that are not known
        self._may_have_duplicates = False  # the store may have two runs of one trial

    @classmethod
    def of(
        cls,
        home: Home,
        name: str,
        begun: SearchBegun,
        corpus: Callable[[Search], Corpus | None],
        *,
        resume: bool,
        is_old: bool = False,
        may_write: Callable[[], bool] = lambda: True,
    ) -> Self:
        """Return the projection of a search to the store of a home, which is not opened yet.

        Args:
            home: home of the search.
            name: name of the search.
            begun: first event of its journal.
            corpus: as for `SearchFiles`.
            resume: True if the store may have the search.
            is_old: as for `SearchFiles`.
            may_write: returns False once another driver records the search.
        """
        space = begun.space
        inputs = partial(dataset_inputs, space.data, begun.facts)
        mode = begun.proposals.mode_of_defaults(space.search.defaults)
        tags = {
            Tag.SAMPLER: space.search.sampler,
            Tag.SCHEDULER: space.search.scheduler,
            Tag.SEED: str(space.search.seed),
            Tag.METRIC: space.objective.metric,
            **({} if mode == "full" else {Tag.DEFAULTS: mode}),
            **({Tag.INIT_FROM: begun.start} if begun.start else {}),
            **({Tag.LEARNED: learned} if (learned := begun.proposals.sentence) else {}),
        }
        settings = RunSettings(
            home.tracking_uri, home.artifacts, space.name, name, tags, resume, inputs, may_write
        )
        return cls(settings, SearchFiles(home.search(name), home.starts, corpus, is_old))

    @cached_property
    def runs(self) -> Runs:
        """The search in the store, which is opened with the first use.

        Raises:
            StoreError: if the store cannot be used.
        """
        return Runs(self._settings)

    @cached_property
    def parent(self) -> ParentRun:
        """Its run, without the trials."""
        return ParentRun(self.runs, self._files)

    @property
    def is_open(self) -> bool:
        """True once the store has the search."""
        return "runs" in vars(self)

    def open(self) -> None:
        """Open the store, unless it is open.

        Raises:
            StoreError: if the store cannot be used.
        """
        try:
            _ = self.runs
        except StoreError as error:
            self._refusal = error
            raise

    def check_open(self) -> None:
        """Raise the StoreError for which the store could not be opened, if there was one."""
        if self._refusal is not None and not self.is_open:
            raise self._refusal

    def sample(self, metrics: SystemMetrics) -> None:
        """Note the load of the workers, which is no event; any thread may call this."""
        self._samples.append(metrics)

    @property
    def run_ids(self) -> dict[int, str]:
        """Trial → its run, of the trials that have one."""
        return {n: trial.run_id for n, trial in self._trials.items() if trial.run_id is not None}

    @override
    def problem(self, reason: str) -> str:
        return (
            f"MLflow at {masked(self._uri)} lacks part of {self._name} ({reason}); "
            f"'tuner sync {self._name}' sends it later"
        )

    # events -----------------------------------------------------------------------------------

    @override
    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        self._search, self._digest = search, entry.digest
        event = entry.event
        match event:
            case SearchBegun():
                self._tasks["data"] = lambda: self.runs.log_inputs(self.runs.run_id)
                self._tasks["files"] = lambda: self.parent.send_inputs(search)
            case SearchEdited():
                self._tasks["files"] = lambda: self.parent.send_inputs(search)
            case SessionBegun():
                self._begin_session(event, search)
            case SessionEnded():
                self._end = event
                self._tasks.pop("running", None)
                self._note_status(search.trials.values(), event.time_ms)
            case _ if isinstance(event, TrialEvent):
                self._take_trial(event, search.trials[event.number])

    def _begin_session(self, event: SessionBegun, search: Search) -> None:
        self._end = None
        self._tasks["running"] = partial(self._send_running, event.time_ms, len(search.sessions))
        self._note_status(search.trials.values(), event.time_ms)

    def _take_trial(self, event: TrialEvent, journaled: JournaledTrial) -> None:
        trial = self._trials.setdefault(event.number, _UnsentTrial(event.number))
        if isinstance(event, TrialBegun):
            tags = trial_tags(event.parent, event.confirms, recorded=event.is_reused)
            trial.start = RunStart(event.spec, journaled.environment, event.time_ms, tags)
            trial.status_ms = event.time_ms
        elif isinstance(event, Reported):
            trial.reports.append(TimedReport(event.report, event.time_ms))
        self._unsent[event.number] = trial
        self._note_status([journaled], event.time_ms)

    def _note_status(self, trials: Iterable[JournaledTrial], time_ms: int) -> None:
        """Note how trials ended, or that they run."""
        for journaled in trials:
            outcome = journaled.trial.outcome
            status = "running" if outcome is None else str(outcome)
            trial = self._trials[journaled.trial.number]
            if trial.status != status:
                trial.status, trial.status_ms = status, time_ms
                self._unsent[trial.number] = trial

    # the store --------------------------------------------------------------------------------

    @override
    def send(self) -> None:
        """Send what was noted; a trial that the store refuses does not delay the others."""
        self.open()
        failures: list[Exception] = []
        for name, task in list(self._tasks.items()):
            if self._try(task, failures):
                del self._tasks[name]
        refused: dict[int, _UnsentTrial] = {}
        for trial in list(self._unsent.values()):
            if len(failures) >= _MOST_FAILURES:
                break
            del self._unsent[trial.number]
            if not self._try(partial(self._send_trial, trial), failures):
                refused[trial.number] = trial
        self._unsent |= refused  # after the others
        if self._samples:
            self._try(self._send_samples, failures)
        if self._may_have_duplicates and not self._unsent:
            self._try(self._delete_duplicates, failures)
        if self._end is not None and not failures:
            self._try(self._send_end, failures)
        if failures:
            raise StoreError(reason_of(failures[-1])) from failures[-1]

    def _send_running(self, time_ms: int, sessions: int) -> None:
        """Say that a search runs again, which an earlier session ended."""
        if self.runs.previous is not None or sessions > 1:
            self.parent.send_running(time_ms)

    def _try(self, action: Callable[[], None], failures: list[Exception]) -> bool:
        """Do an action; return True if the store took it, else note the failure."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a store raises, try again
            failures.append(error)
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self.progress += 1

    def _send_end(self) -> None:
        assert self._search is not None and self._end is not None
        self.parent.send_end(self._search, self._end, self._digest, self.run_ids)
        self._end = None

    def _send_samples(self) -> None:
        """Send the load of the workers, and with the newest of them how far the search is."""
        samples = [self._samples[i] for i in range(len(self._samples))]
        values = {**samples[-1].values, **self._progress()}
        newest = samples[-1]._replace(values=values, tags=self._progress_tags())
        self.runs.log_system_metrics([*samples[:-1], newest])
        for _ in samples:
            self._samples.popleft()

    def _progress_tags(self) -> dict[str, str]:
        """Return how far the search is, as tags of its run, which a person reads."""
        if self._search is None or self._search.end is not None:
            return {}
        board, best = self._search.board, None
        leader = board.best
        if leader is not None and math.isfinite(value := board.value(leader)):
            best = board.metric, value, leader.number
        return progress_tags(len(board.ended), board.num_trials, best, board.seconds_left)

    def _progress(self) -> dict[str, float]:
        """Return how far the search is, as metrics of its run: MLflow's page of it is live."""
        if self._search is None or self._search.end is not None:
            return {}
        board = self._search.board
        values = {
            "trials_ended": len(board.ended),
            "trials": board.num_trials,
            "tokens_per_second": board.tokens_per_second,
        }
        if board.seconds_left is not None:
            values["seconds_left"] = board.seconds_left
        if board.best is not None and math.isfinite(best := board.value(board.best)):
            values[f"best_{board.metric}"] = best
        return {f"{PROGRESS}{name}": float(value) for name, value in values.items()}

    # a trial ----------------------------------------------------------------------------------

    def _send_trial(self, trial: _UnsentTrial) -> None:
        """Take a trial along the arrows of the drawing above, up to the first that raises."""
        run_id = trial.run_id or self._find(trial) or self._create(trial)
        if trial.start is not None:
            self.runs.attach_spec(run_id, trial.start.spec)
        trial.reports = [r for r in trial.reports if r.report.tokens > trial.stored_tokens]
        while trial.start is not None or trial.reports or trial.status != trial.stored_status:
            self._send_batch(run_id, trial)
            self._advance()

    def _send_batch(self, run_id: str, trial: _UnsentTrial) -> None:
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

    def _find(self, trial: _UnsentTrial) -> str | None:
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

    def _create(self, trial: _UnsentTrial) -> str:
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
