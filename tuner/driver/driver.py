"""Carries out the conductor's decisions: in the journal first, then in observers and workers.

The journal of a search holds one event a line:

    search    the space and its data facts; again whenever a resumed search is edited
    session   a driver begins or resumes: its devices, and the order of reports
    trial     a new trial and its draw
    report    a report that the conductor decided about
    failure   a trial that cannot continue
    outcome   how a trial ended; a later event replaces it
    end       the end of a session

Outcomes and ends follow from the other events; `tuner sync` reads them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from signal import SIGINT
from typing import Any

from model.engine.report import Report
from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.conductor.outcome import INTERRUPTED, Outcome
from tuner.conductor.trial import Trial
from tuner.driver.observer import SearchObserver
from tuner.errors import signal_text
from tuner.journal.events import Reported, TrialBegun, TrialEnded, TrialFailed
from tuner.journal.journal import Journal
from tuner.journal.journaled_search import JournaledSearch
from tuner.schedulers.scheduler import Decision
from tuner.workers.assignment import Assignment
from tuner.workers.watchdog import Watchdog, WorkerEvent

_EVENT_TEXTS = {
    WorkerEvent.LOST: "died and restarts; its trials will resume from their last reports",
    WorkerEvent.FROZEN: "did not answer, was killed and restarts; its trials will resume from "
    "their last reports",
    WorkerEvent.BACK: "has restarted",
}
_ALL_STEPS = 2**62  # more steps than any trial has
_RELEASE_AGAIN_SECONDS = 1.0


class SearchHalted(KeyboardInterrupt):
    """Raised to end a halted search: no report is left to wait for.

    A KeyboardInterrupt, because Ray Tune lets only that pass from a callback at once: it catches
    every `Exception`, and first ends its clients, as after an error of its own. The caller handles
    a halted search and a second Ctrl-C in one place.
    """


class Driver:
    """Runs a search on workers.

    The caller starts a client for each assignment and passes the reports of the client to
    `record_report`. No report is released before the caller has called `release_reports`.

    Args:
        conductor: decides.
        journal: journal of the search, open.
        workers: handles of the workers.
        observers: objects to call after each event, in this order.
        in_order: True to take reports in the order of the lanes' virtual clocks, so that the
            search does not depend on timing; False to take them as they come.
        check_interrupt: function that raises KeyboardInterrupt once the user wants to end.
        watchdog: watchdog of the workers.

    Attributes:
        halted: reason why the search ends early and can be resumed; None if it does not.
    """

    def __init__(
        self,
        conductor: Conductor,
        journal: Journal,
        workers: Sequence[Any],
        observers: Sequence[SearchObserver] = (),
        *,
        in_order: bool,
        check_interrupt: Callable[[], None],
        watchdog: Watchdog,
    ) -> None:
        self.conductor = conductor
        self._board = conductor.board
        self._journal, self._workers, self._observers = journal, workers, observers
        self._in_order = in_order
        self._check_interrupt = check_interrupt
        self._watchdog = watchdog
        # The same trial number passes through several states, because workers, clients and the
        # conductor learn of an assignment at different times:
        #   ready     its worker trains already, but no client has asked for it yet. Clients start
        #             slowly, and a free slot must not wait for them.
        #   running   a client has taken it. Only these trials can report; a report for any other
        #             number comes from a client that was given up or whose trial was paused, and
        #             is ignored. A halted search waits for no trial that is not running.
        #   released  (without order) its worker has been asked to release all its reports. Without
        #             this set each report would repeat the call for all running trials.
        self._ready: deque[Assignment] = deque()
        self._running: dict[int, int] = {}  # trial → index of its worker
        self._released: set[int] = set()
        self._may_release = False
        self._announced = 0  # number of trials that are in the journal
        self._begun_at = self._released_at = time.monotonic()
        self._broken: set[str] = set()  # names of what cannot be written, as messages said
        self.halted: str | None = None

    def begin(self) -> None:
        """Start the search, or resume it where the journal ends."""
        search = JournaledSearch.of(self._journal.events)
        for observer in self._observers:
            observer.search_resumed(search)
        journaled = search.trials if search else {}
        self._announced = len(journaled)
        for trial in list(self._board.trials.values())[: self._announced]:
            written = journaled[trial.number].written_outcome
            if trial.outcome is not None and written != trial.outcome:
                # The previous driver was killed between the last report and this event.
                self._end_trial(trial, trial.outcome)
            else:
                for observer in self._observers:
                    observer.trial_restored(trial)
        self._assign(self.conductor.under_way)
        self._fill()

    # calls of the clients ----------------------------------------------------------------------

    def next_assignment(self) -> Assignment | None:
        """Return the assignment for the next client; None if there is none at present."""
        if not self._ready or self.halted:
            return None
        assignment = self._ready.popleft()
        self._running[assignment.number] = assignment.worker
        self._release()  # the search may be waiting for the report of this very trial
        return assignment

    @property
    def has_ready_assignments(self) -> bool:
        """True if there are assignments without a client."""
        return bool(self._ready)

    @property
    def is_over(self) -> bool:
        """True if there will be no further assignment."""
        return bool(self.halted) or (not self._ready and self.conductor.is_over)

    def release_reports(self) -> None:
        """Let the workers release reports from now on."""
        self._may_release = True
        self._release()

    def record_report(self, number: int, report: Report) -> bool:
        """Record a report and carry out the decision about its trial.

        Returns:
            True if the trial continues.
        """
        if number not in self._running:
            return False
        time_ms = self._journal.append(Reported(number, report))
        trial = self._board.trials[number]
        trial.times.append(time_ms)
        decision = self.conductor.report(number, report)
        leads = trial.confirms is None and self._board.leads(trial)
        for observer in self._observers:
            observer.reported(trial, report, time_ms, leads=leads)
        self._prune_checkpoints(number, report.step)
        continues = decision is Decision.CONTINUE and not self.halted
        if not continues:
            self._stop(number, keep=decision is not Decision.STOP or trial.has_finished)
        if trial.outcome is not None:
            self._end_trial(trial, trial.outcome)
        self._fill()
        return continues

    def fail(self, number: int, reason: str) -> None:
        """Record that a trial cannot continue, because its client failed."""
        if number not in self._running:
            return
        self._journal.append(TrialFailed(number, reason))
        self.conductor.fail(number, reason)
        self._stop(number, keep=False)
        trial = self._board.trials[number]
        assert trial.outcome is not None
        self._end_trial(trial, trial.outcome)
        self._fill()

    def tick(self) -> None:
        """Check interrupts, limits, workers and observers; call this about ten times a second.

        Raises:
            SearchHalted: if the search is halted and no running trial can report any more.
            Replaced: if another driver has taken over the search.
        """
        self._journal.check_epoch()
        now = time.monotonic()
        try:
            self._check_interrupt()
        except KeyboardInterrupt as error:
            self.halt("interrupted", getattr(error, "signal", SIGINT))
        max_seconds = self.conductor.space.search.max_seconds
        if max_seconds is not None and now - self._begun_at > max_seconds:
            self.halt("max_seconds")
        if self.halted and not self._can_report():
            raise SearchHalted
        for change in self._watchdog.check():
            self._send_message(f"worker {change.worker} {_EVENT_TEXTS[change.event]}")
        for observer in self._observers:
            observer.tick()
        self._journal.retry()
        self._check_problem("the journal", self._journal.problem)
        for observer in self._observers:
            self._check_problem(observer.name, observer.problem)
        if now - self._released_at > _RELEASE_AGAIN_SECONDS:
            # A worker that restarted since has lost its releases; another one ignores repeats.
            self._released_at = now
            self._released.clear()
            self._release()

    def halt(self, reason: str, signal: int = SIGINT) -> None:
        """Take the reports under way, then end the session; the search can be resumed.

        Args:
            reason: `max_seconds` or `interrupted`.
            signal: number of the signal that interrupts the search.
        """
        if self.halted is None:
            self.halted = reason
            if reason == "max_seconds":
                text, hint = "the time limit is reached", ""
            else:
                again = "Ctrl-C again" if signal == SIGINT else "a second signal"
                text, hint = signal_text(signal), f"; {again} stops at once"
            self._send_message(f"{text}: waiting for the reports under way{hint}")

    def close(self) -> None:
        """End the session: end paused trials if the search is over, interrupt all others."""
        if self.halted is None and self.conductor.is_over:
            self.conductor.close()
            for trial in self._board.paused:
                assert trial.outcome is not None
                self._end_trial(trial, trial.outcome)
        for trial in self._board.trials.values():
            if trial.outcome is None:
                self._end_trial(trial, INTERRUPTED)
        for observer in self._observers:
            if problem := observer.close():
                self._send_message(problem)

    # decisions to workers ----------------------------------------------------------------------

    def _fill(self) -> None:
        """Assign jobs to the free lanes, and release the report that comes next."""
        jobs = self.conductor.fill()
        for number in range(self._announced, len(self._board.trials)):
            self._start_trial(self._board.trials[number])
        self._announced = len(self._board.trials)
        self._assign(jobs)
        self._release()

    def _assign(self, jobs: Sequence[Job]) -> None:
        """Make assignments for clients, and let their workers start at once."""
        for job in jobs:
            assignment = Assignment(
                trial_id=str(job.number),
                worker=job.lane % len(self._workers),
                spec=self._board.trials[job.number].spec.model_dump_json(),
                after=job.after,
                source=None if job.source is None else (str(job.source[0]), job.source[1]),
                reports=tuple(job.reports),
            )
            self._ready.append(assignment)
            if not self.halted:
                self._workers[assignment.worker].start.remote(assignment)

    def _stop(self, number: int, *, keep: bool) -> None:
        """Free a slot of a worker at once, without waiting for the client."""
        worker = self._workers[self._running.pop(number)]
        # If the trial is paused, a later segment of it may start before this call arrives. The
        # step tells the worker which of the two segments to stop.
        worker.stop.remote(str(number), keep, self._board.trials[number].step if keep else None)

    def _prune_checkpoints(self, number: int, step: int) -> None:
        """Let a worker delete older checkpoints, unless a job has yet to start from one."""
        sources = (job.source for job in self.conductor.under_way if job.source is not None)
        if all(trial != number or at >= step for trial, at in sources):
            self._workers[self._running[number]].prune_checkpoints.remote(str(number), step)

    def _release(self) -> None:
        """Release the report that is expected next; without order, all reports."""
        if not self._may_release:
            return
        if not self._in_order:
            for number in self._running.keys() - self._released:
                self._workers[self._running[number]].release_reports.remote(str(number), _ALL_STEPS)
            self._released = set(self._running)
            return
        expected = self.conductor.expected
        if expected is not None and expected[0] in self._running:
            number, step = expected
            self._workers[self._running[number]].release_reports.remote(str(number), step)

    def _can_report(self) -> bool:
        """Return True if a running trial may still report."""
        if not self._in_order:
            return bool(self._running)
        expected = self.conductor.expected
        return expected is not None and expected[0] in self._running

    # events to the journal and to observers ----------------------------------------------------

    def _start_trial(self, trial: Trial) -> None:
        time_ms = self._journal.append(TrialBegun.of_trial(trial))
        for observer in self._observers:
            observer.trial_started(trial, time_ms)
        if trial.outcome is not None:  # it equals another trial of the search
            self._end_trial(trial, trial.outcome)

    def _end_trial(self, trial: Trial, outcome: Outcome) -> None:
        time_ms = self._journal.append(TrialEnded(trial.number, outcome))
        for observer in self._observers:
            observer.trial_ended(trial, outcome, time_ms)

    def _send_message(self, text: str) -> None:
        for observer in self._observers:
            observer.message_sent(text)

    def _check_problem(self, name: str, problem: str | None) -> None:
        """Send a message when something cannot be written any more, and when it can again."""
        if problem is not None and name not in self._broken:
            self._broken.add(name)
            self._send_message(problem)
        elif problem is None and name in self._broken:
            self._broken.remove(name)
            self._send_message(f"{name} can be written again; nothing is lost")
