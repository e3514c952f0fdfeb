"""Errors of `tuner`, each with one clear sentence; only `cli` turns them into exit statuses.

    TunerError              exit status 2: an error the user can fix
    ├── SpaceError          a search-space file has mistakes, all reported together
    ├── RecordError         the record has no such search or run, or no longer fits the data
    ├── StoreError          the tracking store cannot be reached or written
    ├── StorageError        engine.storage cannot be reached or written
    ├── JournalError        the journal of a search is damaged, or its disk fails
    │   └── JournalInUse    another process runs the search
    └── ResultError         exit status 1: the work was done, and its result is bad

    ModelError              exit status 2: errors of `model` that the user can fix; a ValueError
    ├── CorpusError         the data or the tokenizer cannot be used
    ├── CheckpointError     a checkpoint is damaged or does not fit
    └── ExportError         a model cannot be written in a format

    KeyboardInterrupt       caught by the driver, or by `cli`
    ├── Interrupted         exit status 128 + signal: a signal ended the command
    └── Replaced            exit status 3: another driver has taken over the search

    ValueError              caught by `space_file`; a user sees a mistake of a SpaceError
    ├── PriorError          the `prior:` of an entry is invalid (space_file.prior)
    └── PointError          a point of `try_first` is invalid (space.first_draws)

All other exceptions are bugs and show their traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from signal import SIGINT, Signals

from tuner.texts.control_characters import visible
from tuner.texts.secrets import masked


class TunerError(Exception):
    """An error the user can fix; printed without a traceback.

    Its message has no secrets of URLs, and its control characters are shown.
    """

    exit_status = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(masked(message)))


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a search-space file: its position and a message.

    Attributes:
        line: line in the file, from 1; 0 for a mistake of an option or of the whole file.
        column: column in the file, from 1; 0 if the line is 0.
        message: one sentence.
        option: option of the command line that caused the mistake; empty for the file.
    """

    line: int
    column: int
    message: str
    option: str = ""

    def at(self, path: str) -> str:
        """Return the message after its position in the file at `path`."""
        if self.line:
            return f"{path}:{self.line}:{self.column} {self.message}"
        key = self.option.rpartition(" ")[2]  # of `--set data`, which the message may begin with
        return f"{self.option or path}: {self.message.removeprefix(f'{key}: ')}"


class SpaceError(TunerError):
    """All mistakes of one search-space file.

    Args:
        path: path of the file as the user wrote it.
        mistakes: mistakes in any order.
    """

    def __init__(self, path: str, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        self.mistakes = sorted(set(mistakes))
        super().__init__("\n".join(mistake.at(path) for mistake in self.mistakes))


class RecordError(TunerError):
    """The record has no such search or run, or a file that the record names is missing."""


class StoreError(TunerError):
    """The tracking store cannot be reached or written."""


class StorageError(TunerError):
    """`engine.storage` cannot be reached, read or written."""


class JournalError(TunerError):
    """The journal of a search cannot be read or written."""


class JournalInUse(JournalError):  # noqa: N818 - the name states the problem
    """Another process runs the search."""


class ResultError(TunerError):
    """The work was done, and its result is bad."""

    exit_status = 1


class Interrupted(KeyboardInterrupt):
    """A signal ends the command: Ctrl-C, SIGTERM or SIGHUP.

    Args:
        signal: number of the signal; 0 if 'tuner stop' ended the command, which is no failure.
        search: name of the search that was running and can be resumed; None without one.
    """

    def __init__(self, signal: int = SIGINT, search: str | None = None) -> None:
        super().__init__(signal, search)
        self.signal, self.search = signal, search

    @property
    def exit_status(self) -> int:
        """Exit status that a shell shows for a program that the signal ended."""
        return 128 + self.signal if self.signal else 0


class Replaced(KeyboardInterrupt):
    """Another driver has taken over the search of this one, which writes nothing more.

    A KeyboardInterrupt, because Ray Tune catches every `Exception` of its callbacks.

    Args:
        search: name of the search.
        by: which process of which machine the other driver is.
    """

    exit_status = 3

    def __init__(self, search: str, by: str) -> None:
        super().__init__(
            visible(f"{by}, has taken over the search {search}; this driver writes nothing more")
        )


def signal_text(number: int) -> str:
    """Return what a signal does, for a message: `interrupted`, or `ended by SIGTERM`.

    The number 0 is the request of 'tuner stop'.
    """
    if number == 0:
        return "stopped by 'tuner stop'"
    name = Signals(number).name
    return "interrupted" if number == SIGINT else f"ended by {name}"
