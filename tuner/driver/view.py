"""Views of a running search: the `View` protocol, and the projection that tells a view the news."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from typing_extensions import override

from model.progress import OnProgress, silent
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial
from tuner.journal.events import (
    MessageSent,
    NodeLost,
    Reported,
    SessionEnded,
    TrialBegun,
    WorkersChanged,
)
from tuner.journal.fold import Search
from tuner.journal.follower import Projection
from tuner.journal.lines import Entry


class View(Protocol):
    """Shows the progress of a search to a user."""

    def phase(self, message: str) -> None:
        """Show a message about the complete search."""

    def progress(self) -> AbstractContextManager[OnProgress]:
        """Return a context whose function is called with the progress of the preparation."""

    def begin(self, board: Board, title: str) -> None:
        """Show that training begins."""

    def event(self, trial: Trial, message: str) -> None:
        """Show a message about a trial."""

    def workers(self, up: int, number: int) -> None:
        """Show how many workers of a search are up; none are while it waits for the cluster."""

    def end(self) -> None:
        """Show that training has ended."""


class SilentView(View):
    """Shows nothing; the default of the Python API."""

    @override
    def phase(self, message: str) -> None:
        pass

    @override
    def progress(self) -> AbstractContextManager[OnProgress]:
        return nullcontext(silent)

    @override
    def begin(self, board: Board, title: str) -> None:
        pass

    @override
    def event(self, trial: Trial, message: str) -> None:
        pass

    @override
    def workers(self, up: int, number: int) -> None:
        pass

    @override
    def end(self) -> None:
        pass


class ViewProjection(Projection):
    """Shows what is new in a journal to a user, of this process or of another one.

    Args:
        view: the view.
        title: name of the search.
    """

    name = "the view"

    def __init__(self, view: View, title: str) -> None:
        self._view, self._title = view, title
        self._search: Search | None = None
        self._is_on = False

    @override
    def take(self, entry: Entry, search: Search, *, is_sent: bool) -> None:
        self._search = search
        if is_sent:
            return
        event = entry.event
        if isinstance(event, SessionEnded):
            self.close()
        self.send()
        match event:
            case TrialBegun() if event.same_as is not None or event.infeasible:
                # no report will say so
                trial = search.board.trials[event.number]
                self._view.event(trial, str(trial.outcome))
            case Reported():
                trial = search.board.trials[event.number]
                leads = trial.is_searched and search.board.leads(trial)
                self._view.event(trial, report_text(trial, search.board.metric, leads=leads))
            case WorkersChanged():
                self._view.workers(event.up, event.number)
            case NodeLost():
                self._view.phase(f"node {event.name} is lost")
            case MessageSent():
                self._view.phase(event.text)

    @override
    def send(self) -> None:
        search = self._search
        if search is not None and search.sessions and search.end is None and not self._is_on:
            self._is_on = True
            self._view.begin(search.board, self._title)

    @override
    def close(self) -> None:
        if self._is_on:
            self._is_on = False
            self._view.end()


def report_text(trial: Trial, metric: str, *, leads: bool) -> str:
    """Format the newest report of a trial: `report 3/9  val_loss 4.1234  best at this report`."""
    value = trial.objective(metric)
    parts = [f"report {len(trial.reports)}/{len(trial.report_steps)}  {metric} {value:.4f}"]
    if leads:
        parts.append("best so far" if trial.has_finished else "best at this report")
    if trial.outcome:
        parts.append(str(trial.outcome))
    elif trial.is_paused:
        parts.append("waits to be promoted")
    if trial.last is not None and trial.last.problem:
        parts.append(trial.last.problem)
    return "  ".join(parts)
