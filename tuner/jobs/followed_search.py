"""Follows a search that another process runs, perhaps elsewhere: reads its journal as it grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from model.engine.report import Report
from tuner.conductor.board import Board
from tuner.conductor.conductor import Conductor, RestoredDecisions
from tuner.driver.observer import ViewObserver
from tuner.driver.view import SilentView, View
from tuner.errors import TunerError
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
)
from tuner.journal.journal import JournalTail
from tuner.journal.repeat import Repetition
from tuner.space.parameter import Value


class FollowedSearch:
    """A search as its journal says, which another process may be writing.

    Args:
        folder: folder of the search.

    Attributes:
        view: view that gets the events which `update` reads.
        end: end of the newest session; None while a session lasts, and before the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tail = JournalTail(folder)
        self._events: list[Event] = []
        self.view: View = SilentView()
        self._forget()

    @property
    def board(self) -> Board | None:
        """All trials; None before the first session. `update` may replace it."""
        return self._conductor.board if self._conductor else None

    @property
    def newest(self) -> float:
        """Time of the newest event, in seconds since the epoch; 0 without any."""
        return self._now

    def update(self) -> bool:
        """Read what the driver has written since the last call; return True if there is something.

        Raises:
            JournalError: if the journal cannot be read.
            TunerError: if this version decides otherwise than the one that wrote the journal.
        """
        new = self._tail.read()
        shown = len(self._events)
        self._events += new
        try:
            self._repeat(new, self.view)
        except TunerError:
            # The driver was in the middle of a write: a trial was begun before its draw was read.
            self._forget()
            self._repeat(self._events[:shown], SilentView())
            self._repeat(self._events[shown:], self.view)
        return bool(new)

    def _forget(self) -> None:
        self._conductor: Conductor | None = None
        self._repetition: Repetition | None = None
        self._space: SearchBegun | None = None
        self._draws: dict[int, dict[str, Value]] = {}
        self._reused: dict[int, Sequence[Report]] = {}
        self._now = 0.0
        self.end: SessionEnded | None = None

    def _repeat(self, events: Sequence[Event], view: View) -> None:
        for event in events:
            if isinstance(event, TrialBegun):
                self._draws[event.number] = dict(event.draw)
                if event.is_reused:
                    self._reused[event.number] = self._reports_of(event.number, events)
        for event in events:
            self._now = event.time_ms / 1000
            if isinstance(event, SearchBegun):
                self._space = event
            elif isinstance(event, SessionBegun):
                self._begin_session(event)
            if self._repetition is not None:
                self._repetition.add(event)
            if isinstance(event, SessionEnded):
                self._end_session(event)
            self._show(event, view)
        if (board := self.board) is not None:
            board.clock = time.time

    def _reports_of(self, number: int, events: Sequence[Event]) -> list[Report]:
        return [e.report for e in events if isinstance(e, Reported) and e.number == number]

    def _begin_session(self, event: SessionBegun) -> None:
        if self._conductor is None:
            if self._space is None:  # `check_order` says more
                raise TunerError(f"the journal of {self._folder.name} begins with a session")
            restored = RestoredDecisions(self._draws, self._reused)
            begun = self._space
            self._conductor = Conductor(begun.space, begun.facts, event.slots, restored)
            self._repetition = Repetition(self._conductor, self._folder.name)
        self._conductor.board.clock = lambda: self._now
        self._conductor.board.begin_session()
        self.end = None

    def _end_session(self, event: SessionEnded) -> None:
        self.end = event
        if self._conductor is not None and self._conductor.is_over:
            self._conductor.close()

    def _show(self, event: Event, view: View) -> None:
        """Let a view hear of an event that the conductor has taken."""
        board = self.board
        if board is None:
            return
        observer = ViewObserver(view, board.metric)
        if isinstance(event, TrialBegun):
            trial = board.trials[event.number]
            observer.trial_started(trial, event.time_ms, event.environment)
        elif isinstance(event, Reported):
            trial = board.trials[event.number]
            leads = trial.is_searched and board.leads(trial)
            observer.reported(trial, event.report, event.time_ms, leads=leads)
