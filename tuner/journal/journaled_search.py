"""A search as its journal describes it: the one fold of a journal's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Self

from tuner.conductor.outcome import INTERRUPTED, Outcome
from tuner.errors import TunerError
from tuner.journal.check_events import check_order
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEnded,
    TrialFailed,
)
from tuner.journal.journal import read_journal
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.tracking.tags import BEFORE, ENVIRONMENT


@dataclass
class JournaledTrial:
    """A trial as a journal describes it.

    Attributes:
        begun: event with which the trial began.
        environment: device and versions of the worker on which the trial began.
        time_ms: time of the trial's newest event.
        reports: reports that were taken.
        outcome: how the trial ended; None if it has not ended, or continues after an interruption.
        written_outcome: outcome of the newest `TrialEnded`. It may lack `outcome`, if the driver
            was killed between the two events.
        weights: SHA-256 of the checkpoint that was kept after the newest report; None if none was,
            or by earlier versions.
    """

    begun: TrialBegun
    environment: Mapping[str, str]
    time_ms: int
    reports: list[Reported] = field(default_factory=list)
    outcome: Outcome | None = None
    written_outcome: Outcome | None = None
    weights: str | None = None

    def add(self, event: Reported | TrialFailed | TrialEnded) -> None:
        """Add a later event of the trial."""
        self.time_ms = event.time_ms
        match event:
            case Reported():
                self.reports.append(event)
                # an edited search may resume a trial that counted as stopped when the search ended
                self.outcome = self.weights = None
            case TrialFailed():
                self.outcome = Outcome.failed(event.reason)
            case TrialEnded():
                self.outcome = self.written_outcome = event.outcome


@dataclass(frozen=True)
class JournaledSearch:
    """A search as its journal describes it.

    Attributes:
        space: space to search, as last edited.
        space_text: text of the file that the space was read from.
        facts: facts of the data that specifications need.
        first_space: space of the first session.
        rules: version of the conductor's decisions.
        is_edited: True if the space was edited.
        sessions: sessions of all drivers; none if the first driver was killed before its session.
        trials: trials by number.
        reports: reports of all trials, in the order in which they were taken.
        end: end of the newest session; None while the session runs, or if its driver was killed.
        started_ms: time of the first event.
        newest_ms: time of the newest event.
        seconds: time of all sessions, each from its start to its end or last event.
    """

    space: SearchSpace
    space_text: str
    facts: DataFacts
    first_space: SearchSpace
    rules: int
    is_edited: bool
    sessions: Sequence[SessionBegun]
    trials: Mapping[int, JournaledTrial]
    reports: Sequence[Reported]
    end: SessionEnded | None
    started_ms: int
    newest_ms: int
    seconds: float

    @classmethod
    def of(cls, events: Sequence[Event]) -> Self | None:
        """Fold the events of a journal; None if no search begins in them.

        Raises:
            JournalError: if the events contradict each other.
        """
        searches = [event for event in events if isinstance(event, SearchBegun)]
        if not searches:
            return None
        check_order(events)
        # a search may be edited before its first driver begins a session
        before = takewhile(lambda event: not isinstance(event, SessionBegun), events)
        first = [event for event in before if isinstance(event, SearchBegun)][-1]
        ends = [event for event in events if isinstance(event, SessionBegun | SessionEnded)]
        end = ends[-1] if ends and isinstance(ends[-1], SessionEnded) else None
        return cls(
            space=searches[-1].space,
            space_text=searches[-1].space_text,
            facts=searches[-1].facts,
            first_space=first.space,
            rules=first.rules,
            is_edited=len(searches) > 1,
            sessions=[event for event in events if isinstance(event, SessionBegun)],
            trials=_trials(events),
            reports=[event for event in events if isinstance(event, Reported)],
            end=end,
            started_ms=events[0].time_ms,
            newest_ms=events[-1].time_ms,
            # the summary also counts the time in which the first session read its data
            seconds=max(_seconds(events), end.summary.get("wall_seconds", 0.0) if end else 0.0),
        )

    @classmethod
    def of_name(cls, events: Sequence[Event], name: str) -> Self:
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


def begun_search(folder: Path) -> JournaledSearch | None:
    """Return the search of a folder; None if none has begun there.

    A folder may be empty, or have a journal without events: the driver was killed before it began.

    Raises:
        JournalError: as for `read_journal`.
    """
    return JournaledSearch.of(read_journal(folder))


def _seconds(events: Sequence[Event]) -> float:
    """Return the time of all sessions, without the gaps between them."""
    spans, is_open, num_sessions = [[events[0].time_ms, events[0].time_ms]], True, 0
    for event in events:
        match event:
            case SessionBegun() if num_sessions:  # the first one is part of the first span
                spans.append([event.time_ms, event.time_ms])
                is_open = True
            case SearchBegun():  # an edit, after which the next session begins
                pass
            case _ if is_open:
                spans[-1][1] = event.time_ms
        is_open = is_open and not isinstance(event, SessionEnded)
        num_sessions += isinstance(event, SessionBegun)
    return sum(end - start for start, end in spans) / 1000


def _trials(events: Sequence[Event]) -> dict[int, JournaledTrial]:
    trials: dict[int, JournaledTrial] = {}
    environment: Mapping[str, str] = {}
    for event in events:
        match event:
            case SessionBegun():
                environment = event.environment
                for trial in trials.values():
                    if trial.outcome == INTERRUPTED:  # the session continues the trial
                        trial.outcome = None
            case TrialBegun():
                own = event.environment or environment
                trials[event.number] = JournaledTrial(event, own, event.time_ms)
            case Reported() | TrialFailed() | TrialEnded():
                trials[event.number].add(event)
            case SessionEnded():
                for number, sha256 in event.weights.items():
                    trials[number].weights = sha256
    return trials


def environment_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the differences of two environments; empty if there are none."""
    before, now = {**BEFORE, **before}, {**BEFORE, **now}
    changed = (k for k in ENVIRONMENT if before.get(k) != now.get(k))
    return "; ".join(f"{k} {before.get(k)} → {now.get(k)}" for k in changed)
