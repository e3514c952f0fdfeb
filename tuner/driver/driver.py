"""Carries out the conductor's decisions: writes them to the journal, then gives orders to workers.

Workers hear of an event when it is on the disk, and so do the followers of the journal, which tell
MLflow, the bucket, the view and everybody else.
"""

from __future__ import annotations

import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from model.engine.report import Report
from tuner.conductor.conductor import Conductor
from tuner.conductor.job import Job
from tuner.conductor.trial import Trial
from tuner.driver.worker_changes import WorkerChanges
from tuner.errors import signal_text
from tuner.journal.edit_request import EditRequests
from tuner.journal.events import (
    MessageSent,
    NodeLost,
    Reported,
    SearchStalled,
    TrialBegun,
    TrialFailed,
    TrialResumed,
    WorkersChanged,
)
from tuner.journal.fold import Search
from tuner.journal.follower import Follower
from tuner.journal.journal import Journal
from tuner.lease.stop_request import LOOK_SECONDS, StopRequest
from tuner.schedulers.scheduler import Decision
from tuner.texts.formatting import clock
from tuner.workers.assignment import Assignment
from tuner.workers.batch import Failure, ReportBatch
from tuner.workers.orders import Orders
from tuner.workers.watchdog import Watchdog, WorkerEvent

if TYPE_CHECKING:
    from tuner.workers.cluster import Environments

_SIGNAL_SECONDS = 1.0  # longest wait for reports under way after SIGTERM, whose sender soon kills
_STALL_SECONDS = 900.0  # without a report, at least
_STALL_GAPS = 10.0  # and so many of the longest times between two reports
_PAUSE_SECONDS = 60.0  # between two ticks, which come about ten times a second


class SearchHalted(KeyboardInterrupt):
    """Raised to end a halted search: no report is left to wait for.

    A KeyboardInterrupt, because Ray Tune lets only that pass from a callback at once: it catches
    every `Exception`, and first ends its clients, as after an error of its own. The caller handles
    a halted search and a second Ctrl-C in one place.
    """


class Driver:
    """Runs a search on workers.

    The caller passes what the workers' clients read to `record`.

    Args:
        conductor: decides.
        journal: journal of the search, open.
        workers: handles of the workers.
        in_order: True to take reports in the order of the lanes' virtual clocks, so that the
            search does not depend on timing; False to take them as they come.
        check_interrupt: function that raises KeyboardInterrupt once the user wants to end.
        watchdog: watchdog of the workers.
        orders: orders to the workers; by default all are up, and have a slot each.
        environments: devices and versions of the workers; None if they are all alike.
        followers: followers of the journal, whose problems the user hears of.
        say: shows the user what the journal cannot hold: that it, or a follower, cannot write.
        poll: called about ten times a second: measures the load of the workers, which is no event.

    Attributes:
        halted: reason why the search ends early and can be resumed; None if it does not.
    """

    def __init__(
        self,
        conductor: Conductor,
        journal: Journal,
        workers: Sequence[Any],
        *,
        in_order: bool,
        check_interrupt: Callable[[], None],
        watchdog: Watchdog,
        orders: Orders | None = None,
        environments: Environments | None = None,
        followers: Sequence[Follower] = (),
        say: Callable[[str], None] = lambda text: None,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        self.conductor = conductor
        self._board = conductor.board
        self._journal, self._followers = journal, followers
        self._say, self._poll = say, poll
        self._in_order = in_order
        self._check_interrupt = check_interrupt
        self._watchdog = watchdog
        self._orders = orders or Orders(workers)
        self._environments = environments
        self._changes = WorkerChanges(
            self._orders, environments, self._step_of, self._fail, self._send_message
        )
        self._edits = EditRequests(journal.path.parent, self._send_message)
        self._announced = 0  # number of trials that are in the journal
        self._paused: set[int] = set()  # trials that are paused in the journal
        self._workers: WorkersChanged | None = None
        self._early: dict[int, deque[Report | Failure]] = {}  # trial → news before its turn
        self._begun_at = self._looked_at = self._reported_at = time.monotonic()
        self._ticked_at = math.inf  # time of the last tick; infinite before the first
        self._longest_gap, self._has_stalled = 0.0, False
        self._halt_deadline = math.inf
        self._broken: set[str] = set()  # names of what cannot be written, as messages said
        self.halted: str | None = None

    def begin(self) -> None:
        """Start the search, or resume it where the journal ends."""
        search = Search.of(self._journal.events)
        trials = search.board.trials if search else {}
        self._announced = len(trials)
        self._paused = {number for number, trial in trials.items() if trial.is_paused}
        with self._recording():
            self._assign(self.conductor.under_way)
            self._fill()

    # calls of the clients ----------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True if no trial is left to train."""
        return self.conductor.is_over

    def record(self, batches: Sequence[tuple[int, ReportBatch]]) -> None:
        """Record the reports of some workers, and carry out the decisions about their trials.

        Args:
            batches: news of the workers, each with the index of its worker.

        Raises:
            Replaced: if another driver has taken over the search; the workers hear of nothing.
        """
        now = time.monotonic()
        self._longest_gap = max(self._longest_gap, now - self._reported_at)
        self._reported_at, self._has_stalled = now, False
        with self._recording():
            for worker, batch in batches:
                if batch.broken:
                    self._changes.broke(worker, batch.broken)
                for segment, news in batch.news:
                    self._receive(segment, news)
            self._take_early()
            if self.is_over:
                self._orders.end_waiting()

    def fail_trials(self, workers: Sequence[int], reason: str) -> None:
        """Record that the trials of some workers cannot continue."""
        with self._recording():
            for number in self._orders.of_worker(*workers):
                self._fail(number, reason)
            self._take_early()

    def tick(self) -> None:
        """Check interrupts, limits, workers and followers; call this about ten times a second.

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
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._obey(self._journal.stop_request())
            self._take_edits()
        if self.halted and (not self._can_report() or now > self._halt_deadline):
            raise SearchHalted
        changes = self._watchdog.check()
        for change in changes:
            with self._recording():
                self._changes.take(change)
                self._take_early()
                if change.event is WorkerEvent.NODE_LOST:
                    self._journal.append(NodeLost(*change.node))
        if changes:
            self._count_workers()
        self._check_silence(now)
        self._note_pause(now)
        self._poll()
        self._journal.retry()
        self._check_problem("the journal", self._journal.problem)
        for follower in self._followers:
            self._check_problem(follower.projection.name, follower.problem)

    def halt(self, reason: str, signal: int = SIGINT) -> None:
        """Take the reports under way, then end the session; the search can be resumed.

        Args:
            reason: `max_seconds`, `interrupted`, or `stopped` by a request of another process.
            signal: number of the signal that interrupts the search. Whoever sends another one than
                SIGINT kills the process some seconds later, so the reports have a second.
        """
        if self.halted is None:
            self.halted = reason
            if reason == "max_seconds":
                text, hint = "the time limit is reached", ""
            elif reason == "stopped":
                text, hint = "'tuner stop' was called", ""
            else:
                again = "Ctrl-C again" if signal == SIGINT else "a second signal"
                text, hint = signal_text(signal), f"; {again} stops at once"
                if signal != SIGINT:
                    self._halt_deadline = time.monotonic() + _SIGNAL_SECONDS
            self._send_message(f"{text}: waiting for the reports under way{hint}")

    def _obey(self, request: StopRequest | None) -> None:
        """End the session if another process has asked for it."""
        if request is not None:
            self.halt("stopped")
        if request is StopRequest.NOW:
            self._halt_deadline = 0.0

    def _take_edits(self) -> None:
        """Go on with another space if another process has asked for it."""
        if self.halted or self.is_over or self._journal.problem:  # the next session takes them
            return
        for edit in self._edits.take(self.conductor.space, is_live=True):
            with self._recording():
                self.conductor.edit(edit.space)
                self._journal.append(edit)
                self._fill()
                self._take_early()
            if self._journal.problem:  # the request stays until the disk has the edit
                return

    def close(self) -> None:
        """Take all trials from the workers; a search that is over ends its paused trials."""
        with self._recording():
            for number in list(self._orders.running):
                self._stop(number, keep=True)
            if self.halted is None and self.conductor.is_over:
                self.conductor.close()

    # news of the workers -----------------------------------------------------------------------

    def _receive(self, segment: int, news: Report | Failure) -> None:
        """Take news of a trial; in order, only keep them until it is the trial's turn."""
        number = int(news.trial_id)
        if not self._orders.is_current(segment, number):
            return  # of a trial that was paused meanwhile
        if not self._in_order:
            self._take(number, news)
        elif isinstance(news, Failure) or news.step > self._step_of(number):
            self._early.setdefault(number, deque()).append(news)

    def _take_early(self) -> None:
        """Take the news that came early, as long as it is the turn of their trials.

        Meanwhile these trials train on, which is wasted only if a decision ends or pauses them.
        """
        while self._early and (expected := self.conductor.expected):
            if not (news := self._early.get(expected[0])):
                break
            self._take(expected[0], news.popleft())

    def _take(self, number: int, news: Report | Failure) -> None:
        if isinstance(news, Failure):
            self._fail(number, news.reason)
        else:
            self._record(number, news)

    def _stop(self, number: int, *, keep: bool) -> None:
        """Free the slot of a trial, and drop its early news."""
        self._orders.stop(number, keep=keep)
        self._early.pop(number, None)

    def _step_of(self, number: int) -> int:
        """Return the step of a trial's newest report, also of an early one."""
        early = (news.step for news in self._early.get(number, ()) if isinstance(news, Report))
        return max(early, default=self._board.trials[number].step)

    # decisions of the conductor ----------------------------------------------------------------

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Write the events of the block to the journal at once, then give the orders to workers.

        Raises:
            Replaced: if another driver has taken over the search: then the block does not begin.
        """
        self._journal.check_epoch()
        try:
            with self._journal.together():
                yield
            self._orders.send()
        finally:
            self._orders.drop()  # of an error: the journal may lack the events

    def _record(self, number: int, report: Report) -> None:
        """Record a report of a running trial."""
        decision = self.conductor.report(number, report)
        trial = self._board.trials[number]
        self._journal.append(Reported(number, report, decision, trial.outcome))
        if trial.is_paused:
            self._paused.add(number)
        needed = self.conductor.needed(number)  # checkpoints that a job has yet to start from
        self._orders.taken(number, report.step, needed)
        if decision is not Decision.CONTINUE or self.halted:
            is_kept = decision is not Decision.STOP or trial.has_finished or bool(needed)
            self._stop(number, keep=is_kept)
        self._fill()

    def _fail(self, number: int, reason: str) -> None:
        """Record that a running trial cannot continue."""
        self._journal.append(TrialFailed(number, reason))
        self.conductor.fail(number, reason)
        left_out = self._orders.failed(number)
        self._stop(number, keep=bool(self.conductor.needed(number)))
        if left_out is not None:
            self._changes.move_trials(
                left_out, f"left out, since trials in a row failed on it alone ({reason})"
            )
        self._fill()

    def _fill(self) -> None:
        """Assign jobs to the free lanes."""
        self._assign(self.conductor.fill())
        for number in range(self._announced, len(self._board.trials)):
            self._start_trial(self._board.trials[number])
        self._announced = len(self._board.trials)

    def _assign(self, jobs: Sequence[Job]) -> None:
        """Let workers start jobs, unless the search is halted."""
        if self.halted:
            return
        for job in jobs:
            if job.number in self._paused:
                self._paused.remove(job.number)
                self._journal.append(TrialResumed(job.number))
            assignment = Assignment(
                trial_id=str(job.number),
                worker=self._orders.worker_of(job.lane),
                spec=self._board.trials[job.number].spec.model_dump_json(),
                after=job.after,
                source=None if job.source is None else (str(job.source[0]), job.source[1]),
                reports=tuple(job.reports),
            )
            self._orders.start(assignment)

    def _can_report(self) -> bool:
        """Return True if a running trial may still report."""
        if not self._in_order:
            return bool(self._orders.running)
        expected = self.conductor.expected
        return expected is not None and expected[0] in self._orders.running

    # other events ------------------------------------------------------------------------------

    def _start_trial(self, trial: Trial) -> None:
        assignment, environment = self._orders.running.get(trial.number), None
        if self._environments is not None and assignment is not None:
            environment = self._environments.other_of(assignment.worker)
        self._journal.append(TrialBegun.of_trial(trial, environment))

    def _count_workers(self) -> None:
        up = self._watchdog.up - self._orders.left_out
        event = WorkersChanged(len(up), self._orders.num_workers)
        if event != self._workers:
            self._workers = event
            self._journal.append(event)

    def _check_silence(self, now: float) -> None:
        silence = now - self._reported_at
        if not self._has_stalled and silence > max(_STALL_SECONDS, _STALL_GAPS * self._longest_gap):
            self._has_stalled = True
            self._journal.append(SearchStalled(silence, platform.node()))

    def _note_pause(self, now: float) -> None:
        pause, self._ticked_at = now - self._ticked_at, now
        if pause > _PAUSE_SECONDS:
            self._say(
                f"this driver stood still for {clock(pause)}, as after SIGSTOP; its workers "
                f"trained on, and it takes their reports now"
            )

    def _send_message(self, text: str) -> None:
        self._journal.append(MessageSent(text))

    def _check_problem(self, name: str, problem: str | None) -> None:
        """Send a message when something cannot be written any more, and when it can again."""
        if problem is not None and name not in self._broken:
            self._broken.add(name)
            self._say(problem)
        elif problem is None and name in self._broken:
            self._broken.remove(name)
            self._say(f"{name} can be written again; nothing is lost")
