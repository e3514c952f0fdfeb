"""A search read back: all that its journal says, as the result that it had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from model.spec.trial import TrialSpec
from tuner.conductor.board import Board
from tuner.conductor.confirm import conclude
from tuner.conductor.trial import Trial
from tuner.errors import RecordError, TunerError
from tuner.home import Home
from tuner.journal.events import Event, report_of
from tuner.journal.journal import read_journal
from tuner.journal.recorded import Recorded
from tuner.results.result import SearchResult
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import JOURNAL_FILE


def load_search(name: str | None = None, *, home: Home | None = None) -> SearchResult:
    """Read a search back from its record.

    Args:
        name: of the search; by default the newest one.
        home: where it lives; by default ./runs.

    Returns:
        Its result; of one that still runs, or was killed, what it has found so far.

    Raises:
        RecordError: if there is no such search, its journal is not recorded, or none of its trials
            has reported.
        JournalError: if the journal is damaged.
        StoreError: if the tracking store cannot be used.
    """
    home = home or Home.at()
    record = Record(home.tracking_uri)
    search = record.search(name)
    run_ids = {trial.number: trial.run_id for trial in record.trials(search)}
    return result_of(_events(record, search, home), search, run_ids)


def _events(record: Record, search: SearchRecord, home: Home) -> list[Event]:
    """The journal here, which may be newer; or the one that is recorded."""
    own = home.search(search.name)
    with TemporaryDirectory() as folder:
        path = record.download(search.run_id, JOURNAL_FILE, folder)
        recorded = path.read_bytes() if path else b""
        journal = own / JOURNAL_FILE
        written = journal.read_bytes() if journal.is_file() else b""
        # else another search of this name was made here
        is_same = written.startswith(recorded)
        events = read_journal(own if is_same else Path(folder))
    if not events:
        raise RecordError(
            f"the journal of {search.name} is neither in {home.root} nor recorded; run 'tuner "
            f"sync {search.name}' where it was searched"
        )
    return events


def result_of(
    events: Sequence[Event], search: SearchRecord, run_ids: dict[int, str]
) -> SearchResult:
    """The result that a journal tells.

    Args:
        events: of the journal.
        search: as it is recorded.
        run_ids: trial number → MLflow run.

    Raises:
        RecordError: if no trial has reported.
        TunerError: if this version cannot read the journal.
    """
    recorded = Recorded.of(events, search.name)
    space = recorded.space
    board = Board(space.objectives, space.search.trials, 0)
    try:
        for event in events:
            _take(board, event)
    except (KeyError, TypeError, ValueError) as error:
        raise TunerError(
            f"the journal of {search.name} is of another version of tuner; read it with that one"
        ) from error
    end = next((e for e in reversed(events) if e["event"] in ("end", "session")), {})
    # one that was edited is confirmed anew, and has not been before it says so
    is_edited = sum(event["event"] == "search" for event in events) > 1
    is_over = end.get("status") == "finished"
    confirmation = conclude(board, space) if is_over or not is_edited else None
    best = board.trials.get(end.get("best", -1)) or board.best
    if best is None:
        raise RecordError(f"no trial of {search.name} ({search.status}) has reported a result yet")
    return SearchResult(
        name=search.name,
        space=space,
        metric=board.metric,
        trials=board.searched,
        best=best,
        run_ids=run_ids,
        experiment_id=search.experiment_id,
        wall_seconds=end.get("summary", {}).get("wall_seconds", _seconds(events)),
        training_share=end.get("summary", {}).get("training_share", 0.0),
        run_id=search.run_id,
        status=end.get("status", "running"),
        started=events[0]["time_ms"],
        space_text=recorded.space_text,
        environment=recorded.session["environment"] if recorded.session else {},
        confirming=board.confirming,
        confirmation=confirmation,
        limit=end.get("limit"),
        halted=end.get("halted"),
        advice=end.get("advice", []),
    )


def _take(board: Board, event: Event) -> None:
    """Do to a board what was done when an event was written."""
    match event["event"]:
        case "session":
            for row in board.trials.values():  # what was interrupted goes on
                row.outcome = None if row.outcome == "interrupted" else row.outcome
        case "trial":
            spec = TrialSpec.model_validate_json(event["spec"])
            row = Trial(
                event["number"], spec, event["draw"],
                parent=event["parent"], confirms=event["confirms"],
            )  # fmt: skip
            if event["recorded"]:
                row.recorded = row.reports
            board.add(row)
        case "report":
            row = board.trials[event["number"]]
            report, row.outcome = report_of(event), None
            row.times.append(event["time_ms"])
            board.report(row.number, report)
        case "failure":
            board.trials[event["number"]].outcome = f"failed: {event['reason']}"
        case "outcome":
            board.trials[event["number"]].outcome = event["outcome"]


def _seconds(events: Sequence[Event]) -> float:
    return float(events[-1]["time_ms"] - events[0]["time_ms"]) / 1000
