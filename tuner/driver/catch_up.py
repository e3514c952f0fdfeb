"""Sends to a tracker the trials of a journal; the tracker skips what its store already has.

Before, the digest that the store has of the journal is compared with the journal.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner.conductor.outcome import INTERRUPTED
from tuner.journal.journal import check_digest
from tuner.journal.journaled_search import JournaledSearch
from tuner.tracking.runs import RunStart, TimedReport, trial_tags
from tuner.tracking.tags import Tag
from tuner.tracking.tracker import Tracker


def catch_up(tracker: Tracker, search: JournaledSearch | None) -> None:
    """Send the trials of a resumed search, whose unfinished trials are now running.

    Args:
        tracker: tracker of the search.
        search: search as its journal describes it; None if no search begins in the journal.
    """
    if search is not None:
        send_trials(tracker, search, unfinished="running")


def send_trials(tracker: Tracker, search: JournaledSearch, *, unfinished: str) -> None:
    """Send all trials of a journal.

    Args:
        tracker: tracker of the search.
        search: search as its journal describes it.
        unfinished: status of the trials that have not ended, or were interrupted.
    """
    for number, trial in search.trials.items():
        begun = trial.begun
        tags = trial_tags(begun.parent, begun.confirms, recorded=begun.is_reused)
        start = RunStart(begun.spec, trial.environment, begun.time_ms, tags)
        reports = [TimedReport(event.report, event.time_ms) for event in trial.reports]
        has_ended = trial.outcome not in {None, INTERRUPTED}
        status = str(trial.outcome) if has_ended else unfinished
        tracker.add_trial(number, start, reports, status, trial.time_ms)


def check_recorded(tracker: Tracker, name: str, digests: Sequence[str]) -> None:
    """Check that the journal of a search begins with the lines that its record names.

    Raises:
        JournalError: if it does not.
    """
    previous = tracker.runs.previous
    check_digest(name, digests, previous.tags.get(Tag.JOURNAL) if previous else None)
