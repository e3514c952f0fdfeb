"""The searches of a home as their journals say, for many readers at one time."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from tuner.conductor.outcome import OutcomeKind
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus, TailedSearch, searches_of
from tuner.journal.fold import Search
from tuner.journal.journal import JOURNAL_FILE
from tuner.lease.folder import is_running

FRESH_SECONDS = 0.5  # for which an answer is given again to whoever only looks
_MOST_FOLDS = 16  # searches that are kept in memory beside those that run
_WAITING, _TRAINING, _PAUSED = "waiting", "training", "paused"
TRIAL_STATES = (_WAITING, _TRAINING, _PAUSED, *map(str, OutcomeKind))
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Known:
    stamp: tuple[int, int]
    at: float
    status: SearchStatus
    counts: Mapping[str, int]
    num_events: int


class HomeSearches:
    """The searches of a home; a journal is read again only after it has grown.

    Args:
        home: home of the searches.
        fresh_seconds: time for which an answer is given again to whoever only looks.

    Attributes:
        home: the home.
        fresh_seconds: the time.
    """

    def __init__(self, home: Home, fresh_seconds: float = FRESH_SECONDS) -> None:
        self.home, self.fresh_seconds = home, fresh_seconds
        self._known: dict[str, _Known] = {}
        self._folds: OrderedDict[str, TailedSearch] = OrderedDict()
        self._names: tuple[float, list[str]] = (0.0, [])
        self._names_lock, self._folds_lock = threading.Lock(), threading.Lock()
        # of each search: its fold must not grow while it is read, and a large one delays no other
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def names(self) -> list[str]:
        """Return the names of the searches that have a journal, the newest first."""
        with self._names_lock:  # one of many clients reads the folder
            at, names = self._names
            if not at or time.monotonic() - at > self.fresh_seconds:
                names = searches_of(self.home)[::-1]
                self._names = time.monotonic(), names
        return names

    def status(self, name: str, *, fresh: bool = False) -> SearchStatus | None:
        """Return how far a search is; None if it has no folder.

        Args:
            name: name of the search.
            fresh: True for the present, False if an answer of just before will do.
        """
        known, now = self._known.get(name), time.monotonic()
        if known is not None and not fresh and now - known.at < self.fresh_seconds:
            return known.status
        folder = self.home.search(name)
        stamp, is_on = self.stamp(name), is_running(folder)
        if not is_on and not folder.is_dir():  # of a search that waits for its first driver
            return None
        if known is not None and known.stamp == stamp and not is_on and not known.status.driver:
            self._known[name] = replace(known, at=now)
            return known.status
        with self._locks[name]:
            tailed = self._folds.get(name) or TailedSearch(folder)
            try:
                status = SearchStatus.of(self.home, name, tailed, has_left=False)
            except TunerError:
                self.forget(name)
                return None
            if status.driver and not status.problem:
                self._keep(name, tailed)
            search = None if status.problem else tailed.search
            counts = _by_state(search) if search else {}
            num_events = search.num_events if search else 0
            self._known[name] = _Known(stamp, now, status, counts, num_events)
        return status

    def counts(self, name: str) -> tuple[Mapping[str, int], int]:
        """Return the numbers of trials by state and of events, as of the newest `status`."""
        known = self._known.get(name)
        return ({}, 0) if known is None else (known.counts, known.num_events)

    def warm(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Read searches that nobody has asked for yet, the newest first, for some seconds.

        Args:
            seconds: the time.
            is_over: function that says whether there is something better to do.
        """
        until = time.monotonic() + seconds
        for name in self.names():
            if name not in self._known:
                self.status(name)
                if time.monotonic() > until or is_over():
                    return

    def read(self, name: str, use: Callable[[Search], Value]) -> Value | None:
        """Return what a function makes of a search; None if it has not begun.

        Raises:
            JournalError: if its journal cannot be read.
        """
        with self._locks[name]:
            tailed = self._folds.get(name) or TailedSearch(self.home.search(name))
            tailed.update()
            self._keep(name, tailed)
            return None if tailed.search is None else use(tailed.search)

    def place_before(self, name: str, line: int) -> tuple[int, int]:
        """Return a place in the journal of a search before a line, as far as it was read.

        Returns:
            Its numbers of lines and of bytes.
        """
        tailed = self._folds.get(name)
        return (0, 0) if tailed is None else tailed.before(line)

    def num_workers(self, name: str) -> int:
        """Return the number of workers of a search that runs; 1 while nobody knows."""

        def count(search: Search) -> int:
            if search.workers is not None:
                return max(1, search.workers.number)
            return search.space.engine.workers or 1

        try:
            return self.read(name, count) or 1
        except TunerError:
            return 1

    def forget(self, name: str) -> None:
        """Forget a search, which was deleted."""
        with self._locks[name]:
            self._known.pop(name, None)
            self._folds.pop(name, None)

    def _keep(self, name: str, tailed: TailedSearch) -> None:
        with self._folds_lock:
            self._folds[name] = tailed
            self._folds.move_to_end(name)
            while len(self._folds) > _MOST_FOLDS:
                self._folds.popitem(last=False)

    def stamp(self, name: str) -> tuple[int, int]:
        """Return what changes as the journal of a search grows."""
        try:
            stat = (self.home.search(name) / JOURNAL_FILE).stat()
        except OSError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_size


def _by_state(search: Search) -> Mapping[str, int]:
    """Return the number of trials in each state."""
    board = search.board
    counts = Counter(
        str(trial.outcome.kind) if trial.outcome else _PAUSED if trial.is_paused else _TRAINING
        for trial in board.trials.values()
    )
    counts[_WAITING] = max(0, board.num_trials - len(board.trials))
    return {state: counts[state] for state in TRIAL_STATES}
