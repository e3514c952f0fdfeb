"""What the driver shows a user while a search runs. Views implement this protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from model.progress import OnProgress, silent
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial


class View(Protocol):
    """Is told what happens."""

    def phase(self, message: str) -> None:
        """Something before or after training is being done."""

    def progress(self) -> AbstractContextManager[OnProgress]:
        """Long work before training begins; it says how far it is to what this gives."""

    def begin(self, board: Board, title: str) -> None:
        """Training begins."""

    def event(self, row: Trial, message: str) -> None:
        """Something happened to a trial."""

    def end(self) -> None:
        """Training is over."""


class SilentView:
    """Shows nothing; for use from Python."""

    def phase(self, message: str) -> None:
        """Show nothing."""

    def progress(self) -> AbstractContextManager[OnProgress]:
        """Show nothing."""
        return nullcontext(silent)

    def begin(self, board: Board, title: str) -> None:
        """Show nothing."""

    def event(self, row: Trial, message: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""
