"""Carries out what the conductor decides: in the journal first, then on the workers and the record.

The journal of a search holds, one event a line:

    search    the space and what belongs to it; again whenever a resumed search is edited
    session   a driver begins, or goes on: where it trains, and how reports are taken
    trial     a new trial and what was drawn for it
    report    a report that was taken
    failure   a trial that cannot go on
    outcome   how a trial ended; a later one replaces it
    end       a driver is done

Outcomes and ends follow from the others; they are for `tuner sync`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from model.engine.report import Report
from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.conductor.outcome import INTERRUPTED, Outcome
from tuner.conductor.trial import Trial
from tuner.driver.catch_up import catch_up
from tuner.driver.optuna_dashboard import StudyStore
from tuner.driver.view import View
from tuner.journal.events import Reported, TrialBegun, TrialEnded, TrialFailed
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch
from tuner.results.optuna_export import study_trial
from tuner.schedulers.scheduler import Decision
from tuner.tracking.runs import trial_tags
from tuner.tracking.tracker import Tracker
from tuner.workers.load import MetricsPoller
from tuner.workers.watchdog import Watchdog, WorkerEvent

_SIGNS = {
    WorkerEvent.LOST: "died and is being started again; its trials will go on from their last "
    "reports",
    WorkerEvent.FROZEN: "did not answer any more and is being started again, as if it had died",
    WorkerEvent.BACK: "is back",
}
_ALL = 2**62  # updates, more than any trial makes
_LONGEST_START_SECONDS = 120.0  # of the first clients; then reports come all the same
_REPEAT_SECONDS = 1.0  # a worker that was restarted has forgotten whom it may let through


class SearchHalted(KeyboardInterrupt):
    """The search halts here; of a kind that Ray Tune lets pass."""


class Driver:
    """Conducts a search on workers.

    Args:
        conductor: decides.
        journal: is written before anything is done.
        tracker: the record.
        view: what the user sees.
        workers: train.
        environment: device and versions of the workers.
        in_order: whether reports are taken by the clocks of the slots.
        check_interrupt: raises KeyboardInterrupt once the user wants the search to end.
        watchdog: looks after the workers.
        studies: where Optuna's dashboard finds the trials that have ended.
        rounds: asks the workers how busy they are, for the record.

    Attributes:
        halted: why the search ends before its time; it can be resumed.
        environment: device and versions of the workers.
    """

    def __init__(
        self,
        conductor: Conductor,
        journal: Journal,
        tracker: Tracker,
        view: View,
        workers: Sequence[Any],
        environment: Mapping[str, str],
        *,
        in_order: bool,
        check_interrupt: Callable[[], None],
        watchdog: Watchdog,
        studies: StudyStore | None = None,
        rounds: MetricsPoller | None = None,
    ) -> None:
        self.conductor = conductor
        self._board = conductor.board
        self._journal, self._tracker, self._view = journal, tracker, view
        self._workers = workers
        self.environment = environment
        self._in_order = in_order
        self._check_interrupt = check_interrupt
        self._watchdog, self._studies, self._rounds = watchdog, studies, rounds
        self._ready: deque[Job] = deque()
        self._launched: dict[int, int] = {}  # trial → its worker
        self._clients: set[int] | None = set()  # trials whose clients are up; None: all were, once
        self._allowed: set[int] = set()  # trials all of whose reports may come
        self._announced = 0  # trials that the journal and the record know
        self._started = self._repeated = time.monotonic()
        self._problems: set[str] = set()  # what cannot be written, as the user was told
        self.halted: str | None = None

    def begin(self) -> None:
        """Start, or go on where the journal ends."""
        search = JournaledSearch.of(self._journal.events)
        catch_up(self._tracker, search)  # it may lack what the last driver said
        journaled = search.trials if search else {}
        self._announced = len(journaled)
        for row in list(self._board.trials.values())[: self._announced]:
            if row.outcome is not None and journaled[row.number].written_outcome != row.outcome:
                self._close(row)  # the last driver was killed before it could say so
            else:
                self._copy(row)
        self._send(self.conductor.under_way)
        self._fill()

    # what Ray Tune asks ------------------------------------------------------------------------

    def next_job(self) -> dict[str, Any] | None:
        """What the next client is to train, if there is something."""
        if not self._ready or self.halted:
            return None
        job = self._ready.popleft()
        self._launched[job.number] = worker = self._worker_of(job)
        self._allow()  # it may be the one that is waited for
        return {"number": job.number, "worker": worker, **self._order(job)}

    def _worker_of(self, job: Job) -> int:
        return job.lane % len(self._workers)

    def _order(self, job: Job) -> dict[str, Any]:
        """What a worker is to do, in the order in which `Worker.start` takes it."""
        return {
            "spec": self._board.trials[job.number].spec.model_dump_json(),
            "after": job.after,
            "source": None if job.source is None else [str(job.source[0]), job.source[1]],
            "reports": [asdict(report) for report in job.reports] or None,
        }

    @property
    def is_over(self) -> bool:
        """Whether no job will come any more."""
        return bool(self.halted) or (not self._ready and self.conductor.is_over)

    def take(self, number: int, report: Report) -> bool:
        """A trial reported; whether it goes on."""
        if number not in self._launched:  # of a client that was given up
            return False
        time_ms = self._journal.append(Reported(number, report))
        row, best_before = self._board.trials[number], self._board.best
        row.times.append(time_ms)
        decision = self.conductor.report(number, report)
        self._tracker.report(number, report, time_ms)
        is_best = self._board.best is row and best_before is not row
        self._view.event(row, _in_words(row, self._board.metric, is_best=is_best))
        self._acknowledge(number, report.step)
        goes_on = decision is Decision.GO_ON and not self.halted
        if not goes_on:
            self._free(number, keep=decision is not Decision.STOP or row.has_finished)
        if row.outcome is not None:
            self._close(row)
        self._fill()
        return goes_on

    def client_is_up(self, number: int) -> None:
        """A trial's client has started.

        No report may come before all of the first ones have: Ray Tune would give the process of a
        trial that ends to one that waits for its own, throw that away half started, and go on so.
        """
        if self._clients is not None:
            self._clients.add(number)
            if not self._ready and self._clients >= self._launched.keys():
                self._open()

    def _open(self) -> None:
        """Let reports come."""
        self._clients = None
        self._allow()

    def fail(self, number: int, reason: str) -> None:
        """A trial's client died."""
        if number not in self._launched:
            return
        self._journal.append(TrialFailed(number, reason))
        self.conductor.fail(number, reason)
        self._free(number, keep=False)
        self._close(self._board.trials[number])
        self._fill()

    def tick(self) -> None:
        """About ten times a second.

        Raises:
            Over: when the search was halted and nothing more can be finished.
        """
        now = time.monotonic()
        try:
            self._check_interrupt()
        except KeyboardInterrupt:
            self.halt("interrupted")
        most = self.conductor.space.search.max_seconds
        if most is not None and now - self._started > most:
            self.halt("max_seconds")
        if self.halted and not self._can_report():
            raise SearchHalted
        for worker, sign in self._watchdog.check():
            self._view.phase(f"worker {worker} {_SIGNS[sign]}")
        if self._rounds and (vitals := self._rounds.check()):
            self._tracker.note_vitals(vitals)
        self._journal.retry()
        self._tell_problem("the journal", self._journal.problem)
        self._tell_problem("the tracking store", self._tracker.problem)
        if self._clients is not None and now - self._started > _LONGEST_START_SECONDS:
            self._open()
        if now - self._repeated > _REPEAT_SECONDS:
            self._repeated = now
            self._allowed.clear()
            self._allow()

    def _tell_problem(self, where: str, problem: str | None) -> None:
        """Say what cannot be written, once, and when it can be again."""
        if (problem is None) != (where not in self._problems):
            self._problems ^= {where}
            self._view.phase(problem or f"{where} can be written again; nothing is lost")

    def halt(self, reason: str) -> None:
        """Take the reports under way and end; the search can be resumed."""
        if self.halted is None:
            self.halted = reason
            again = "; Ctrl-C again stops at once" if reason == "interrupted" else ""
            what = {"max_seconds": "the time is up"}.get(reason, reason)
            self._view.phase(f"{what}: waiting for the reports under way{again}")

    def _can_report(self) -> bool:
        """Whether a trial under way can still report."""
        if not self._in_order:
            return bool(self._launched)
        expected = self.conductor.expected
        return expected is not None and expected[0] in self._launched

    # doing it ----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give free slots their next jobs, and say whose report may come next."""
        jobs = self.conductor.fill()
        for number in range(self._announced, len(self._board.trials)):
            self._announce(self._board.trials[number])
        self._announced = len(self._board.trials)
        self._send(jobs)
        self._allow()

    def _send(self, jobs: Sequence[Job]) -> None:
        """Have workers begin with jobs at once; clients that Ray Tune starts find them there."""
        self._ready.extend(jobs)
        for job in jobs if not self.halted else ():
            worker = self._workers[self._worker_of(job)]
            worker.start.remote(str(job.number), *self._order(job).values())

    def _announce(self, row: Trial) -> None:
        time_ms = self._journal.append(TrialBegun.of_trial(row))
        tags = trial_tags(row.parent, row.confirms, recorded=bool(row.reused))
        self._tracker.start_trial(row.number, row.spec, self.environment, time_ms, tags)
        if row.outcome is not None:  # it is the same as another
            self._view.event(row, str(row.outcome))
            self._close(row)

    def _close(self, row: Trial) -> None:
        """A trial has ended: say so everywhere."""
        assert row.outcome is not None
        self._record_end(row, row.outcome)
        self._copy(row)

    def _copy(self, row: Trial) -> None:
        """Show a trial that has ended in Optuna's dashboard; a repeated one is no trial of it."""
        if self._studies and row.outcome and row.confirms is None and row.reports:
            conductor = self.conductor
            trial = study_trial(conductor.space, row.draw, self._board.observation(row))
            self._studies.add(row.number, trial)

    def _record_end(self, row: Trial, outcome: Outcome) -> None:
        time_ms = self._journal.append(TrialEnded(row.number, outcome))
        self._tracker.end_trial(row.number, str(outcome), time_ms)

    def _free(self, number: int, *, keep: bool) -> None:
        """Free a trial's place at its worker at once, without waiting for its client."""
        worker = self._workers[self._launched.pop(number)]
        # the step tells a leg from a later one of the same trial, which may have begun by then
        worker.stop.remote(str(number), keep, self._board.trials[number].step if keep else None)

    def _acknowledge(self, number: int, step: int) -> None:
        """Older states of a trial may go, unless another is still to begin with one of them."""
        waiting = (job.source for job in self.conductor.under_way if job.source is not None)
        if all(trial != number or at >= step for trial, at in waiting):
            self._workers[self._launched[number]].acknowledge.remote(str(number), step)

    def _allow(self) -> None:
        """Let the report come that is expected next; or all, if they are taken as they come."""
        if self._clients is not None:
            return
        if not self._in_order:
            for number in self._launched.keys() - self._allowed:
                self._workers[self._launched[number]].allow.remote(str(number), _ALL)
            self._allowed = set(self._launched)
            return
        expected = self.conductor.expected
        if expected is not None and expected[0] in self._launched:
            number, step = expected
            self._workers[self._launched[number]].allow.remote(str(number), step)

    def close(self) -> None:
        """The search is over, or halts here: what has not ended is recorded as it stands."""
        if self.halted is None and self.conductor.is_over:
            self.conductor.close()
            for row in self._board.paused:
                self._close(row)
        for row in self._board.trials.values():
            if row.outcome is None:
                self._record_end(row, INTERRUPTED)
        problem = self._studies.close() if self._studies else None
        if problem:
            self._view.phase(problem)


def _in_words(row: Trial, metric: str, *, is_best: bool) -> str:
    """`report 3/9  val_loss 4.1234  best so far`, and what became of the trial."""
    value = row.objective(metric)
    words = [f"report {len(row.reports)}/{len(row.report_steps)}  {metric} {value:.4f}"]
    if is_best:
        words.append("best so far")
    if row.outcome:
        words.append(str(row.outcome))
    elif row.is_paused:
        words.append("waits to be promoted")
    if row.last is not None and row.last.problem:
        words.append(row.last.problem)
    return "  ".join(words)
