"""A search as its journal describes it: the one fold of a journal's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tuner.conductor.board import Board
from tuner.conductor.confirmation import Confirmation
from tuner.conductor.cool_downs import CoolDowns
from tuner.conductor.outcome import INTERRUPTED, Outcome
from tuner.conductor.retraining import conclude
from tuner.conductor.trial import Trial
from tuner.conductor.trust import Trust
from tuner.errors import JournalError, TunerError
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SearchEdited,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEvent,
    TrialFailed,
    TrialResumed,
    WorkersChanged,
    check_draw,
)
from tuner.schedulers.scheduler import Decision
from tuner.space.cool_down import branch_specs


@dataclass
class JournaledTrial:
    """A trial as a journal describes it.

    Attributes:
        trial: the trial, with its reports and outcome; also on the board.
        begun: event with which the trial began.
        environment: device and versions of the worker on which the trial began.
        changed_ms: time of the trial's newest event, in milliseconds since the epoch.
        weights: SHA-256 of the checkpoint that was kept after the newest report; None if none was.
    """

    trial: Trial
    begun: TrialBegun
    environment: Mapping[str, str]
    changed_ms: int
    weights: str | None = None


class Search:
    """A search up to an event of its journal; `apply` takes the next one.

    Args:
        begun: first event of the journal.

    Attributes:
        begun: first event of the journal.
        space: space to search, as last edited.
        space_text: text of the file that the space was read from.
        facts: facts of the data.
        first_space: space of the first session.
        is_edited: True if the space was edited after that.
        sessions: sessions of all drivers; none if the first driver was killed before its session.
        board: all trials as views and results see them. Its newest trial, report or outcome is that
            of the newest event.
        trust: trust in what was learned from earlier searches.
        trials: trials by number, with what the journal says beside.
        confirmation: comparison of the best configurations, once they are retrained.
        workers: workers of the session, as last counted; None if nobody has counted them.
        end: end of the newest session; None while the session runs, or if its driver was killed.
        newest_ms: time of the newest event.
        num_events: number of events.
    """

    def __init__(self, begun: SearchBegun) -> None:
        self.begun = begun
        self.space, self.space_text, self.facts = begun.space, begun.space_text, begun.facts
        self.first_space = begun.space
        self.is_edited = False
        self.sessions: list[SessionBegun] = []
        self.trust = Trust(begun.space, begun.proposals)
        self.board = Board.of(begun.space, begun.facts, self.trust)
        self.board.begin_session(begun.time_ms / 1000)
        self.trials: dict[int, JournaledTrial] = {}
        self.confirmation: Confirmation | None = None
        self.workers: WorkersChanged | None = None
        self.end: SessionEnded | None = None
        self.newest_ms = begun.time_ms
        self.num_events = 1
        self._cool_downs = CoolDowns()
        self._num_never = 0  # shorter budgets that their trunks did not reach
        self._before_ms = 0  # time of the sessions before the newest one
        self._span_ms = [begun.time_ms, begun.time_ms]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self | None:
        """Fold the events of a journal; None if there are none.

        Raises:
            JournalError: if the events contradict each other.
        """
        search: Self | None = None
        for event in events:
            search = cls.after(search, event)
        return search

    @classmethod
    def after(cls, search: Self | None, event: Event) -> Self:
        """Return a search with one more event, which may be its first.

        Raises:
            JournalError: if the event contradicts the ones before it.
        """
        if search is None:
            if not isinstance(event, SearchBegun):
                raise _contradiction(1, "the search has not begun")
            return cls(event)
        search.apply(event)
        return search

    @classmethod
    def of_name(cls, events: Iterable[Event], name: str) -> Self:
        """Fold the events of the journal of a search that must have begun.

        Raises:
            TunerError: if no search begins in the events.
        """
        search = cls.of(events)
        if search is None:
            raise TunerError(
                f"the search {name} has not begun: its driver was ended before; begin it with "
                f"'tuner search --space FILE --name {name}'"
            )
        return search

    @property
    def session(self) -> SessionBegun | None:
        """The newest session; None if no driver came to begin one."""
        return self.sessions[-1] if self.sessions else None

    @property
    def seconds(self) -> float:
        """Time of all sessions, each from its start to its end or last event."""
        # the summary also counts the time in which the first session read its data
        summary = self.end.summary.get("wall_seconds", 0.0) if self.end else 0.0
        return max((self._before_ms + self._span_ms[1] - self._span_ms[0]) / 1000, summary)

    def apply(self, event: Event) -> None:
        """Take the next event.

        Raises:
            JournalError: if the event contradicts the ones before it.
        """
        self.num_events += 1
        self.newest_ms = event.time_ms
        try:
            self._apply(event)
        except ValueError as error:
            raise _contradiction(self.num_events, str(error)) from error
        if self.end is None and not isinstance(event, SearchEdited):
            self._span_ms[1] = event.time_ms  # an edit may come long after a driver was killed

    def _apply(self, event: Event) -> None:
        match event:
            case SearchBegun():
                raise ValueError("the search begins again")
            case SearchEdited():
                self._edit(event)
            case SessionBegun():
                self._begin_session(event)
            case TrialBegun():
                self._begin_trial(event)
            case TrialResumed() | Reported() | TrialFailed():
                self._change_trial(event)
            case WorkersChanged():
                self.workers = event
            case SessionEnded():
                self._end_session(event)

    def _edit(self, event: SearchEdited) -> None:
        self.space, self.space_text = event.space, event.space_text
        if self.sessions:
            self.is_edited = True
            self.board.edit(event.space, self._num_never)
            self.confirmation = None
        else:
            self.first_space = event.space
            self.trust = Trust(event.space, self.begun.proposals)
            self.board = Board.of(event.space, self.facts, self.trust)

    def _begin_session(self, event: SessionBegun) -> None:
        if self.sessions:  # the first one is part of the time since the search began
            self._before_ms += self._span_ms[1] - self._span_ms[0]
            self._span_ms = [event.time_ms, event.time_ms]
        self.sessions.append(event)
        self.end = self.workers = None
        for trial in self.board.trials.values():
            # the session may continue it: also what counted as stopped when the search ended
            if trial.outcome == INTERRUPTED or trial.is_paused:
                trial.outcome = None
        self.board.begin_session(event.time_ms / 1000)

    def _end_session(self, event: SessionEnded) -> None:
        for number in {event.best, *event.kept, *event.weights} - {None}:
            self._known(number)
        self._span_ms[1] = event.time_ms
        self.end, self.workers = event, None
        for trial in self.board.trials.values():
            if trial.outcome is None and trial.is_paused and event.status == "finished":
                trial.outcome = Outcome.stopped(len(trial.reports))
            elif trial.outcome is None:
                trial.outcome = INTERRUPTED
        for number, sha256 in event.weights.items():
            self.trials[number].weights = sha256
        self._conclude()

    def _begin_trial(self, event: TrialBegun) -> None:
        if event.number != len(self.board.trials):
            raise ValueError(f"trial {event.number} begins after {len(self.board.trials)} others")
        for number in {event.parent, event.confirms, event.same_as} - {None}:
            self._known(number)
        check_draw(self.space, event.draw)
        trial = Trial(
            event.number, event.spec, event.draw, parent=event.parent, confirms=event.confirms
        )
        parent = None if event.parent is None else self.trials[event.parent]
        if trial.is_cool_down and parent is not None:
            trial.is_whole = parent.begun.is_reused
            self._cool_downs.next()
        if event.is_reused:
            trial.reused = trial.reports  # the search trained none of its reports
        session = self.session
        environment = event.environment or (session.environment if session else {})
        self.board.add(trial)
        self.trials[event.number] = JournaledTrial(trial, event, environment, event.time_ms)
        if event.same_as is not None:
            self._end_trial(trial, Outcome.same_as(event.same_as))
        elif event.infeasible:
            self._end_trial(trial, Outcome.infeasible(event.infeasible))
            self.board.replace(trial)
        elif trial.is_searched and self.space.budget.shorter:
            specs = branch_specs(self.space, trial.spec, trial.draw, self.facts)
            self._cool_downs.add(trial, specs)
        if parent is not None and not trial.is_cool_down:
            self.board.num_trials += 1
        self.board.num_trials = max(self.board.num_trials, len(self.board.trials))

    def _change_trial(self, event: TrialEvent) -> None:
        journaled = self._known(event.number)
        journaled.changed_ms = event.time_ms
        trial = journaled.trial
        match event:
            case TrialResumed():
                trial.is_paused, trial.outcome, journaled.weights = False, None, None
            case Reported():
                journaled.weights = None
                trial.times.append(event.time_ms)
                self.board.record_report(event.number, event.report, event.time_ms / 1000)
                self._cool_downs.take_report(trial)
                trial.is_paused = event.decision is Decision.PAUSE
                if event.outcome is not None:
                    self._end_trial(trial, event.outcome)
            case TrialFailed():
                trial.is_paused = False
                self._end_trial(trial, Outcome.failed(event.reason))

    def _end_trial(self, trial: Trial, outcome: Outcome) -> None:
        trial.outcome = outcome
        if trial.is_searched:
            never = self._cool_downs.end(trial.number)
            if trial.is_duplicate or trial.is_infeasible:  # of a trial that has them, or of none
                never = len(self.space.budget.shorter)
            self._num_never += never
            self.board.num_trials -= never
        elif trial.confirms is not None and not self.is_edited:
            self._conclude()

    def _conclude(self) -> None:
        # the retrainings of an edited search may be of former finalists, until the search ends
        if not self.is_edited or (self.end is not None and self.end.status == "finished"):
            self.confirmation = conclude(self.board, self.space)

    def _known(self, number: int | None) -> JournaledTrial:
        if number is None or number not in self.trials:
            raise ValueError(f"trial {number} has not begun")
        return self.trials[number]


def _contradiction(number: int, what: str) -> JournalError:
    return JournalError(
        f"the journal contradicts itself at event {number}: {what}; it was edited, restore it: the "
        f"artifacts of the search in MLflow have a copy"
    )
