"""The errors that a user can cause, each one clear sentence; only `cli` turns them into statuses.

    TunerError          exit status 2: bad input or usage
    ├── SpaceError      a search-space file has mistakes, all reported together
    ├── RecordError     the record has no such search or run, or it no longer fits the data
    ├── StoreError      the tracking store cannot be reached or written
    ├── JournalError    the journal of a search is damaged, or its disk fails
    │   └── JournalInUse    another process runs the search
    └── ResultError     exit status 1: the work was done and the result is bad

`model` raises `CorpusError` and `CheckpointError`, which mean exit status 2 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TunerError(Exception):
    """Something that the user can put right."""

    exit_status = 2


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a file: where, and one sentence.

    If an option of the command line made it, that is where, and line and column are 0.
    """

    line: int
    column: int
    message: str
    option: str = ""

    def at(self, path: str) -> str:
        """The sentence after its place in the file of a path."""
        where = f"{self.option}:" if self.option else f"{path}:{self.line}:{self.column}"
        return f"{where} {self.message}"


class SpaceError(TunerError):
    """All mistakes of one search-space file.

    Args:
        path: the file as the user named it.
        mistakes: in any order.
    """

    def __init__(self, path: str, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        self.mistakes = sorted(set(mistakes))
        super().__init__("\n".join(mistake.at(path) for mistake in self.mistakes))


class RecordError(TunerError):
    """The record has no such search or run, or what it names is no longer there."""


class StoreError(TunerError):
    """The tracking store cannot be reached or written."""


class JournalError(TunerError):
    """The journal of a search cannot be read or written."""


class JournalInUse(JournalError):  # noqa: N818 - reads as what is the case
    """Another process runs the search."""


class ResultError(TunerError):
    """The work was done, and its result is bad."""

    exit_status = 1


class TrialError(RuntimeError):
    """A trial cannot be trained; one sentence says why."""


class WorkerError(RuntimeError):
    """A worker's engine broke; the worker ends, and Ray starts it again."""
