"""Views of a running search: the `View` protocol, and a view that shows nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from typing_extensions import override

from model.progress import OnProgress, silent
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial


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
