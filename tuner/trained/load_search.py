"""Reads a search back: the result it had, or has so far, from its journal."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.conductor.board import Board
from tuner.conductor.retraining import conclude
from tuner.conductor.trial import Trial
from tuner.errors import RecordError
from tuner.home import Home
from tuner.journal.events import Event
from tuner.journal.journaled_search import JournaledSearch
from tuner.results.result import SearchResult
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.trained.recorded_journal import recorded_events


def load_search(name: str | None = None, *, home: Home | None = None) -> SearchResult:
    """Read a search back from its record.

    Args:
        name: name of the search; by default the newest one.
        home: home of the search; by default ./runs.

    Returns:
        Result of the search; of a search that still runs or was killed, the result so far.

    Raises:
        RecordError: if there is no such search, its journal is not recorded, or none of its trials
            has reported.
        JournalError: if the journal is damaged, is not the recorded one, or another version of
            tuner wrote it.
        StoreError: if the tracking store cannot be used.
    """
    home = home or Home.recorded()
    record = Record(home.tracking_uri)
    search = record.search(name)
    events = recorded_events(record, search, home)
    if not events:
        raise RecordError(
            f"the journal of {search.name} is neither in {home.root} nor recorded; run 'tuner "
            f"sync {search.name}' where it was searched"
        )
    return result_of(events, search, record.run_ids(search))


def result_of(
    events: Sequence[Event], search: SearchRecord, run_ids: dict[int, str]
) -> SearchResult:
    """Return the result that a journal describes.

    Args:
        events: events of the journal.
        search: record of the search.
        run_ids: trial → id of its MLflow run.

    Raises:
        RecordError: if no trial has reported.
        TunerError: if no search begins in the journal.
    """
    journaled = JournaledSearch.of_name(events, search.name)
    space, end = journaled.space, journaled.end
    board = _board(journaled)
    # the retrainings of an edited search may be of former finalists, until the search ends
    may_confirm = not journaled.is_edited or (end is not None and end.status == "finished")
    confirmation = conclude(board, space) if may_confirm else None
    best = board.best if end is None or end.best is None else board.trials[end.best]
    if best is None:
        raise RecordError(f"no trial of {search.name} ({search.status}) has reported a result yet")
    summary = end.summary if end else {}
    return SearchResult(
        name=search.name,
        space=space,
        metric=board.metric,
        trials=board.searched,
        best=best,
        run_ids=run_ids,
        experiment_id=search.experiment_id,
        wall_seconds=journaled.seconds,
        training_share=summary.get("training_share", 0.0),
        run_id=search.run_id,
        status=end.status if end else "running",
        started=journaled.started_ms,
        space_text=journaled.space_text,
        environment=journaled.session.environment if journaled.session else {},
        branches=board.branches,
        confirming=board.confirming,
        confirmation=confirmation,
        limit=end.limit if end else None,
        halted=end.halted if end else None,
        advice=list(end.advice) if end else [],
        sessions=len(journaled.sessions),
    )


def _board(search: JournaledSearch) -> Board:
    """Return a board that is as the driver's board was at the newest event."""
    board = Board(search.space.objectives, search.space.search.trials, 0)
    for number, journaled in search.trials.items():
        begun = journaled.begun
        trial = Trial(
            number, begun.spec, begun.draw, outcome=journaled.outcome, parent=begun.parent,
            confirms=begun.confirms,
        )  # fmt: skip
        if trial.is_cool_down and begun.parent is not None:
            trial.is_whole = search.trials[begun.parent].begun.is_reused
        if begun.is_reused:
            trial.reused = trial.reports  # the search trained none of its reports
        board.add(trial)
    # in the order of the journal: of equally good trials, the board prefers the first
    for event in search.reports:
        board.trials[event.number].times.append(event.time_ms)
        board.record_report(event.number, event.report)
    return board
