"""Says how far a search is, from its folder alone: the tracking store need not answer."""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.conductor.board import Board
from tuner.conductor.left import Left, estimate_left
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.journal.journal import JOURNAL_FILE, JournalTail
from tuner.lease.folder import is_running, newest
from tuner.lease.holder import Holder
from tuner.texts.formatting import clock

_HANGS_SECONDS = 120.0  # without a heartbeat, which comes every 5 seconds


class TailedSearch:
    """A search as its journal says, which another process may be writing.

    Args:
        folder: folder of the search.

    Attributes:
        search: the search up to the newest event that was read; None before the first.
    """

    def __init__(self, folder: Path) -> None:
        self._tail = JournalTail(folder)
        self.search: Search | None = None

    def update(self) -> None:
        """Read what the driver has written since the last call.

        Raises:
            JournalError: if the journal cannot be read, or contradicts itself.
        """
        for entries in self._tail.parts():
            for entry in entries:
                self.search = Search.after(self.search, entry.event)

    def before(self, line: int) -> tuple[int, int]:
        """Return a place in the journal before a line: its numbers of lines and of bytes."""
        marks = self._tail.marks
        return marks[max(0, bisect_right(marks, line, key=lambda mark: mark[0]) - 1)]


@dataclass(frozen=True)
class SearchStatus:
    """How far a search is.

    Attributes:
        name: name of the search.
        state: `running`, `starting` (a driver has it, and no session has begun), `finished`,
            `interrupted` (it goes on when it is submitted again), `failed`, or `unknown`.
        driver: which process of which machine runs it; empty if none does.
        ended: number of its trials that have ended.
        trials: number of trials that will run, as known so far.
        metric: name of the objective's metric.
        best: value of the best trial; None before the first report.
        best_trial: number of that trial.
        tokens: training tokens up to the newest reports.
        tokens_per_second: training tokens per second of late; None unless it is running.
        seconds_left: estimate of the remaining seconds; None unless it is running and has reported.
        newest: time of the newest event, in seconds since the epoch; None without any.
        left: what more trials could find; None if it cannot be told, or nobody asked.
        problem: why there are no numbers; None if there are.
        waits_for: why a search of a server waits in its queue; None unless it does.
    """

    name: str
    state: str
    driver: str = ""
    ended: int = 0
    trials: int = 0
    metric: str = ""
    best: float | None = None
    best_trial: int | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    newest: float | None = None
    left: Left | None = None
    problem: str | None = None
    waits_for: str | None = None

    @classmethod
    def of(
        cls, home: Home, name: str, tailed: TailedSearch | None = None, *, has_left: bool = True
    ) -> SearchStatus:
        """Return the status of a search of a home.

        Args:
            home: home of the search.
            name: name of the search.
            tailed: the search, as read so far; what is new is read.
            has_left: False to leave out what is left to find, which takes long for many trials.

        Raises:
            TunerError: if the home has no search of this name.
        """
        folder = home.search(name)
        if not folder.is_dir():
            raise no_search(name, home)
        is_on = is_running(folder)
        holder = newest(folder)
        driver = _text_of(holder) if is_on and holder else ""
        tailed = tailed or TailedSearch(folder)
        try:
            tailed.update()
        except TunerError as error:
            return cls(name, "running" if is_on else "unknown", driver, problem=str(error))
        search = tailed.search
        if search is None or not search.sessions:
            return cls(name, "starting" if is_on else "interrupted", driver)
        ended = search.end.status if search.end else "interrupted"
        state = "running" if is_on else ended
        status = _of_board(search.board, name, state, driver, search.newest_ms / 1000)
        if not has_left:
            return status
        return replace(
            status,
            left=estimate_left(search.space, search.board.searched, search.begun.proposals.draws),
        )


def _text_of(holder: Holder) -> str:
    """Return which process drives a search, and that it hangs if it does."""
    silence = time.time() - holder.beat
    if silence < _HANGS_SECONDS:
        return holder.text
    return f"{holder.text}, not heard for {clock(silence)}: it hangs, or sleeps"


def _of_board(board: Board, name: str, state: str, driver: str, newest_time: float) -> SearchStatus:
    is_on, best = state == "running", board.best
    value = math.inf if best is None else board.value(best)
    return SearchStatus(
        name=name,
        state=state,
        driver=driver,
        ended=len(board.ended),
        trials=board.num_trials,
        metric=board.metric,
        best=value if math.isfinite(value) else None,
        best_trial=None if best is None else best.number,
        tokens=board.tokens,
        tokens_per_second=board.tokens_per_second if is_on else None,
        seconds_left=board.seconds_left if is_on else None,
        newest=newest_time,
    )


def searches_of(home: Home) -> list[str]:
    """Return the names of the searches that have a journal in a home, oldest first."""

    def begun(folder: Path) -> float:
        try:
            return (folder / JOURNAL_FILE).stat().st_ctime
        except OSError:
            return 0.0

    folders = sorted(home.searches(), key=begun)
    return [f.name for f in folders if os.access(f / JOURNAL_FILE, os.R_OK)]


def no_search(name: str, home: Home) -> TunerError:
    """Return the error for a name that no search of a home has."""
    return TunerError(
        f"there is no search {name} in {home.root}; 'tuner status' shows them, and --home names "
        f"another home"
    )
