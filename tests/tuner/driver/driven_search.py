"""A driver with a real conductor and journal, on workers that only record their calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from model.engine.report import Report, Status
from tests.tuner.simulated_search import FACTS, trained
from tuner.conductor.clock import TOKENS
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.driver import training
from tuner.driver.driver import Driver
from tuner.driver.team import Order
from tuner.driver.view import SilentView, ViewProjection
from tuner.journal.events import (
    Event,
    MessageSent,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    WorkersChanged,
)
from tuner.journal.fold import Search
from tuner.journal.follower import Follower
from tuner.journal.journal import Journal, read_journal
from tuner.lease.folder import FolderLeases
from tuner.lease.holder import Holder
from tuner.space.proposals import NOTHING
from tuner.space.space import SearchSpace
from tuner.workers.assignment import Assignment
from tuner.workers.batch import Failure, ReportBatch
from tuner.workers.watchdog import Watchdog, WorkerChange

FAILS = 3  # number of the trial that no worker can train
_NO_PROCESS = 2**22 + 1  # no process has such an id
Find = Callable[[str], Sequence[Report]]


class Recorder:
    """Records its calls, with and without `remote`."""

    def __init__(self, calls: list[tuple[Any, ...]], name: str = "") -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Any:
        if name == "remote":
            return lambda *arguments: self._calls.append((self._name, *arguments))
        return Recorder(self._calls, name)

    def __call__(self, *arguments: Any) -> None:
        self._calls.append((self._name, *arguments))


class TextView(SilentView):
    """A view that keeps its messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, message: str) -> None:
        self.texts.append(message)

    def event(self, trial: Trial, message: str) -> None:
        self.texts.append(f"{trial.number}: {message}")

    def workers(self, up: int, number: int) -> None:
        self.texts.append(f"{up} of {number}")


class ScriptedWatchdog:
    """A watchdog that finds what a test says."""

    def __init__(self) -> None:
        self.changes: list[WorkerChange] = []
        self.up: set[int] = set()

    def check(self) -> list[WorkerChange]:
        changes, self.changes = self.changes, []
        return changes


class Setting:
    """A driver with its journal, a view that keeps texts, and workers that record their calls."""

    def __init__(
        self,
        folder: Path,
        conductor: Conductor,
        *,
        in_order: bool = True,
        followers: Sequence[Follower] = (),
        num_workers: int = 1,
    ) -> None:
        self.journal = Journal.open(folder / "lm-1")
        self.worker_calls: list[tuple[Any, ...]] = []
        self.interrupt: Callable[[], None] = lambda: None
        if not self.journal.events:
            self.journal.append(SearchBegun(conductor.space, "", FACTS))
        self.journal.append(SessionBegun({}, 2, in_order))
        self._view = TextView()
        self._projection = ViewProjection(self._view, "lm-1")
        self._feed = self.journal.feed()
        self._search: Search | None = None
        self.driver = Driver(
            conductor,
            self.journal,
            [Recorder(self.worker_calls) for _ in range(num_workers)],
            in_order=in_order,
            check_interrupt=lambda: self.interrupt(),
            watchdog=Watchdog([]),
            followers=followers,
            say=self._view.phase,
        )

    @property
    def events(self) -> list[Event]:
        """The events that are on the disk."""
        return read_journal(self.journal.path.parent)

    @property
    def search(self) -> Search:
        """The search that the journal describes."""
        return Search.of_name(self.events, "lm-1")

    @property
    def texts(self) -> list[str]:
        """What the view shows, once its follower has taken all events that are on the disk."""
        for entry in self._feed.read():
            self._search = Search.after(self._search, entry.event)
            self._projection.take(entry, self._search, is_sent=False)
        return self._view.texts

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.worker_calls if call[0] == name]

    def running(self) -> dict[int, Assignment]:
        """The assignments that were started and not stopped since, by number of the trial."""
        running: dict[int, Assignment] = {}
        for name, *arguments in self.worker_calls:
            if name == "start":
                running[arguments[0].number] = arguments[0]
            elif name == "stop" and running[int(arguments[0])].segment == arguments[1]:
                del running[int(arguments[0])]
        return running

    def batch(self, *numbers: int) -> ReportBatch:
        """Return the next reports of some trials; a trial that is named twice makes two."""
        steps = {n: trial.step for n, trial in self.driver.conductor.board.trials.items()}
        reports = []
        for number in numbers:
            trial = self.driver.conductor.board.trials[number]
            steps[number] = next(s for s in trial.spec.report_steps if s > steps[number])
            segment = self.running()[number].segment if number in self.running() else 0
            reports.append((segment, trained(trial, steps[number])))
        return ReportBatch(tuple(reports))

    def report(self, number: int) -> bool:
        """Pass the next report of a trial to the driver; return True if the trial continues."""
        self.driver.record([(0, self.batch(number))])
        return number in self.running()

    def run(self) -> None:
        """Pass all expected reports to the driver, then end its session."""
        while expected := self.driver.conductor.expected:
            self.report(expected[0])
        self.driver.close()

    def fail(self, number: int, reason: str) -> None:
        """Pass it to the driver that the worker cannot train a trial."""
        segment = self.running()[number].segment
        self.driver.record([(0, ReportBatch(failures=(Failure(segment, str(number), reason),)))])


def decisions(events: Iterable[Event]) -> list[str]:
    """Return what a search decided, as text: its events without times, sessions and news."""
    others = SessionBegun | SessionEnded | WorkersChanged | MessageSent
    # as text, because NaN is not equal to itself
    return [repr(replace(event, time_ms=0)) for event in events if not isinstance(event, others)]


class Crash(BaseException):
    """The end of a process at any moment."""


def kill(journal: Journal) -> None:
    """Leave of a journal what a killed process leaves: a lease of a process that is gone."""
    journal._waiting.clear()
    journal.problem = None
    epoch, folder = journal.epoch, journal.path.parent
    journal.close()
    FolderLeases(folder).write(replace(Holder.me(epoch), pid=_NO_PROCESS))


def _trials_of(find: Find) -> Any:
    """A tracking store with the trials of another search."""

    def finished(spec_hash: str, *_: Any) -> Iterator[Any]:
        if reports := find(spec_hash):
            yield SimpleNamespace(trial=SimpleNamespace(reports=reports))

    record = SimpleNamespace(experiments=lambda: ["0"], has_other_searches=lambda *_: True)
    home = SimpleNamespace(tracking_uri="memory:")
    return SimpleNamespace(record=record, home=home, finished=finished)


class Session:
    """One session of a search, as `train` runs it; a formula makes the reports.

    Each turn, the workers report of all trials in training, some before it is their turn. Trial 3
    cannot be trained.

    Args:
        folder: folder of the search.
        space: space of the session.
        slots: number of trials in training at one time.
        find: returns the reports of a finished trial of another search.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        slots: int = 2,
        find: Find = lambda spec_hash: (),
    ) -> None:
        self.journal = Journal.open(folder)
        recorded = Search.of(self.journal.events)
        self._calls: list[tuple[Any, ...]] = []
        self._running: dict[str, Assignment] = {}  # trial → what it was started with last
        self._steps: dict[int, int] = {}  # segment → step of its newest report
        start: Any = SimpleNamespace(
            journal=self.journal, recorded=recorded, space=space, facts=FACTS, name=folder.name,
            team=SimpleNamespace(slots=slots, order=Order(True, TOKENS)), view=SilentView(),
            trials=_trials_of(find), request=SimpleNamespace(fresh=False, space_text=None),
            proposals=NOTHING, trial_bytes=0,
        )  # fmt: skip
        try:
            if recorded is None:
                self.journal.append(SearchBegun(space, "name: space", FACTS))
            self.conductor = training._make_conductor(start, {})
        except Crash:
            self.kill()
            raise
        self.driver = Driver(
            self.conductor, self.journal, [Recorder(self._calls)], in_order=True,
            check_interrupt=lambda: None, watchdog=Watchdog([]),
        )  # fmt: skip

    def run(self, turns: int | None = None, on_turn: Callable[[], None] = lambda: None) -> None:
        """Run the session to its end, or until it is interrupted after some turns.

        Args:
            turns: number of turns; None for all.
            on_turn: called after each turn.

        Raises:
            Crash: as the test raises it; the process is dead then.
        """
        try:
            self.driver.begin()
            on_turn()
            for _ in range(turns) if turns is not None else itertools.count():
                if self.driver.is_over:
                    break
                self.driver.record([(0, self._news())])
                on_turn()
            if not self.driver.is_over:
                self.driver.halted = "interrupted"
            self.driver.close()
            best = self.conductor.board.best
            self.journal.append(
                SessionEnded(
                    "interrupted" if self.driver.halted else "finished",
                    {"wall_seconds": 1.0}, best=best and best.number,
                )
            )  # fmt: skip
        except Crash:
            self.kill()
            raise

    def end(self) -> list[Event]:
        """Close the journal; return its events."""
        self.journal.close()
        return read_journal(self.journal.path.parent)

    def kill(self) -> None:
        """End as a killed process does."""
        kill(self.journal)

    def _news(self) -> ReportBatch:
        """Return the next report of each trial in training."""
        calls, self._calls[:] = self._calls[:], []
        for name, *arguments in calls:
            if name == "start":
                self._running[arguments[0].trial_id] = arguments[0]
            elif name == "stop" and self._running[arguments[0]].segment == arguments[1]:
                del self._running[arguments[0]]
        reports, failures = [], []
        for assignment in self._running.values():
            segment, trial = assignment.segment, self.conductor.board.trials[assignment.number]
            before = self._steps.get(segment, assignment.after)
            step = next((step for step in trial.report_steps if step > before), None)
            if trial.number == FAILS:
                failures.append(Failure(segment, assignment.trial_id, "out of memory"))
            elif step is not None:
                copies = {report.step: report for report in assignment.reports}
                report = replace(
                    copies.get(step) or trained(trial, step), trial_id=str(trial.number)
                )
                reports.append((segment, report))
                is_last = report.status is not Status.TRAINING
                self._steps[segment] = trial.report_steps[-1] if is_last else step
        return ReportBatch(tuple(reports), tuple(failures))
