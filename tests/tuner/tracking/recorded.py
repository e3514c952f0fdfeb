"""Recorded searches for tests, and queries of their stores."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import Any, Literal

from model.engine.report import METRICS, SOME_METRICS, Report, Status
from model.spec.trial import TrialSpec
from tests.tuner.simulated_search import FACTS
from tuner.clock import CLOCK, SystemClock
from tuner.conductor.outcome import Outcome
from tuner.home.home import Home
from tuner.journal.events import (
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialFailed,
    TrialResumed,
)
from tuner.journal.follower import Cursor, Follower
from tuner.journal.journal import Journal
from tuner.schedulers.scheduler import Decision
from tuner.space.data_facts import DataFacts
from tuner.space.settings import Budget, SearchConfig
from tuner.space.space import SearchSpace
from tuner.tracking.projection import CURSOR, MlflowProjection
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord
from tuner.tracking.tags import SPEC_FILE

ENVIRONMENT = {
    "device": "cpu: x", "dtype": "float32", "width": "any", "compiled": "no",
    "trainer": "2", "torch": "2", "numpy": "2", "python": "3",
}  # fmt: skip
SPACE = SearchSpace(
    name="lm",
    budget=Budget(tokens=384, reports=3),
    search=SearchConfig(trials=24, sampler="tpe", scheduler="asha", seed=3),
)


class RecordedSearch:
    """A search whose driver has no workers: a test says what happens.

    Args:
        home: home of the search.
        name: name of the search; one that the home has is resumed.
        space, facts, start: of a search that begins.
        is_followed: True to record the search in MLflow.
        clock: clock of the follower.

    Attributes:
        journal: journal of the search.
        mlflow: its projection to MLflow.
        follower: follower of the projection.
    """

    def __init__(
        self,
        home: Home,
        name: str = "lm-1",
        *,
        space: SearchSpace = SPACE,
        facts: DataFacts = FACTS,
        start: str = "",
        is_followed: bool = True,
        clock: SystemClock = CLOCK,
    ) -> None:
        self.journal = Journal.open(home.search(name))
        self._is_followed = self._is_closed = False
        is_new = not self.journal.events
        if is_new:
            self.journal.append(SearchBegun(space, "name: lm\n", facts, start))
        self._home, self._name, self._is_new = home, name, is_new
        if is_followed:
            self.follow(clock)
            self.follower.start()
        self.journal.append(SessionBegun(ENVIRONMENT, 1, in_order=True))

    def follow(self, clock: SystemClock = CLOCK) -> None:
        """Make a follower that records the search in MLflow, once it is started."""
        self._is_followed = True
        begun = self.journal.events[0]
        assert isinstance(begun, SearchBegun)
        self.mlflow = MlflowProjection.of(
            self._home, self._name, begun, lambda _: None,
            resume=not self._is_new, may_write=self._may_write,
        )  # fmt: skip
        self.mlflow.period_seconds = 1.0  # shorter, for the tests to wait less
        self.mlflow.open()
        cursor = Cursor(self._home.search(self._name), CURSOR)
        self.follower = Follower(
            self.mlflow, self.journal.feed(), cursor, may_write=self._may_write, clock=clock
        )

    def begin(
        self,
        number: int,
        spec: TrialSpec,
        *,
        environment: Mapping[str, str] | None = None,
        parent: int | None = None,
        confirms: int | None = None,
        same_as: int | None = None,
    ) -> None:
        """Begin a trial."""
        self.journal.append(
            TrialBegun(number, {}, spec, parent, confirms, same_as=same_as, environment=environment)
        )

    def report(self, number: int, *reports: Report, outcome: str | None = None) -> None:
        """Take reports of a trial; the last one ends it, if there is an outcome."""
        for each in reports:
            is_last = outcome is not None and each is reports[-1]
            ends = Outcome.parse(outcome) if outcome is not None and is_last else None
            decision = Decision.STOP if ends is not None else Decision.CONTINUE
            self.journal.append(Reported(number, each, decision, ends))

    def resume(self, number: int) -> None:
        """Go on with a trial that was paused, or stopped before an edit."""
        self.journal.append(TrialResumed(number))

    def fail(self, number: int, reason: str) -> None:
        """End a trial that cannot continue."""
        self.journal.append(TrialFailed(number, reason))

    def trial(self, number: int, spec: TrialSpec, *reports: Report, outcome: str) -> None:
        """Begin a trial, take its reports and end it."""
        self.begin(number, spec)
        self.report(number, *reports, outcome=outcome)

    def end(
        self,
        status: Literal["finished", "interrupted", "failed"] = "finished",
        best: int | None = None,
        *,
        kept: Sequence[int] = (),
        **summary: float,
    ) -> None:
        """End the session."""
        self.journal.append(SessionEnded(status, summary, best, kept=tuple(kept)))

    def flush(self) -> None:
        """Wait until the store has everything."""
        assert self.follower.flush(30) is None

    def run_of(self, number: int) -> str:
        """Return the run of a trial."""
        return self.mlflow.run_ids[number]

    def finish(
        self,
        status: Literal["finished", "interrupted", "failed"] = "finished",
        best: int | None = None,
        *,
        kept: Sequence[int] = (),
        **summary: float,
    ) -> None:
        """End the session, wait until the store has everything, and close the journal."""
        self.end(status, best, kept=kept, **summary)
        if self._is_followed:
            self.flush()
        self.close()

    def close(self) -> None:
        """End the driver as a kill would: nothing more is sent."""
        self._is_closed = True
        if self._is_followed:
            self.follower.close(0.0)
        self.journal.close()

    def _may_write(self) -> bool:
        return not self._is_closed and self.journal.may_write()


Begin = Callable[..., RecordedSearch]


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 1 / 3, 0.1 + 0.2, 0.01)


def rows(store: str, query: str) -> list[Any]:
    """Return rows of the tables of the store."""
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        return connection.execute(query).fetchall()


def contents(store: str) -> dict[str, list[Any]]:
    """Every row of the store that is about a run."""
    tables = ("metrics", "latest_metrics", "params", "tags", "runs")
    return {table: sorted(rows(store, f"select * from {table}"), key=repr) for table in tables}


def stored_spec(record: Record, trial: TrialRecord) -> TrialSpec:
    """The specification that is attached to the run of a trial."""
    with TemporaryDirectory() as folder:
        path = record.download(trial.run_id, SPEC_FILE, folder)
        assert path is not None
        return TrialSpec.model_validate_json(path.read_bytes())


def stored_reports(record: Record, trial: TrialRecord) -> dict[int, dict[str, float]]:
    """The curves of the run of a trial: step → metric → value."""
    reports: dict[int, dict[str, float]] = {}
    for name in (*METRICS, *SOME_METRICS):
        for metric in record.client.get_metric_history(trial.run_id, name):
            reports.setdefault(metric.step, {})[name] = metric.value
    return dict(sorted(reports.items()))


def stored_steps(store: str, number: int) -> list[int]:
    """Steps of a trial's reports in the order in which they were written."""
    name = f"lm-1/{number:03d}"
    steps = rows(
        store,
        "select step from metrics join runs using (run_uuid) where key = 'tokens' and "
        f"runs.name = '{name}' and lifecycle_stage = 'active' order by metrics.rowid",
    )
    return [step for (step,) in steps]


def states(record: Record, search: str = "lm-1") -> list[tuple[int, str, str]]:
    """Number, our status and MLflow's of each trial."""
    trials = record.trials(record.search(search))
    get = record.client.get_run
    return [(t.number, t.status, get(t.run_id).info.status) for t in trials]


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
