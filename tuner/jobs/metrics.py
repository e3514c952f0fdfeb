"""The searches of a home as metrics of Prometheus, from their journals.

So one exporter serves all drivers, wherever they run, and tells of a search also after its driver
died. Names and units follow https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuner.conductor.outcome import OutcomeKind
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus, TailedSearch, searches_of
from tuner.journal.fold import Search
from tuner.journal.follower import Cursor
from tuner.journal.journal import JOURNAL_FILE
from tuner.lease.folder import is_running
from tuner.tracking.projection import CURSOR

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STATES = ("running", "starting", "finished", "interrupted", "failed", "unknown")
_WAITING, _TRAINING, _PAUSED = "waiting", "training", "paused"
TRIAL_STATES = (_WAITING, _TRAINING, _PAUSED, *map(str, OutcomeKind))
_NAMES = {  # attribute of the status → name, help
    "tokens_per_second": ("tuner_tokens_per_second", "Training tokens per second of late."),
    "seconds_left": ("tuner_left_seconds", "Estimate of the remaining time."),
    "newest": (
        "tuner_newest_event_timestamp_seconds",
        "Time of the newest event in the journal: time() minus it is the journal's lag.",
    ),
}
_RECENT_SECONDS = 86_400.0


class HomeMetrics:
    """Collector of Prometheus: searches that run, or whose journal grew within a day.

    Args:
        home: home of the searches.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._tailed: dict[str, TailedSearch] = {}

    def describe(self) -> list[Metric]:
        """Return nothing: what there is depends on the searches."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all recent searches."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        by_search = ["search"]
        states = GaugeMetricFamily(
            "tuner_search_state", "1 for the state that the search is in.",
            labels=["search", "state"],
        )  # fmt: skip
        trials = GaugeMetricFamily("tuner_trials", "Trials by state.", labels=["search", "state"])
        best = GaugeMetricFamily(
            "tuner_best_objective", "Objective of the best trial.", labels=["search", "metric"]
        )
        tokens = CounterMetricFamily(
            "tuner_trained_tokens", "Training tokens of all trials, to their newest reports.",
            labels=by_search,
        )  # fmt: skip
        unsynced = GaugeMetricFamily(
            "tuner_unsynced_events",
            "Events of the journal that MLflow refuses or has yet to get; 'tuner sync' sends them.",
            labels=by_search,
        )
        others = {name: GaugeMetricFamily(*text, labels=by_search) for name, text in _NAMES.items()}
        for status, search in self._statuses():
            for state in STATES:
                states.add_metric([status.name, state], float(state == status.state))
            if search is None:
                continue
            counts = _by_state(search)
            for state in TRIAL_STATES:
                trials.add_metric([status.name, state], counts[state])
            tokens.add_metric([status.name], status.tokens)
            sent = Cursor(self._home.search(status.name), CURSOR).read()
            unsynced.add_metric([status.name], search.num_events - (sent[0] if sent else 0))
            if status.best is not None:
                best.add_metric([status.name, status.metric], status.best)
            for name, gauge in others.items():
                value = getattr(status, name)
                if value is not None:
                    gauge.add_metric([status.name], value)
        yield from (states, trials, best, tokens, unsynced, *others.values())

    def _statuses(self) -> Iterator[tuple[SearchStatus, Search | None]]:
        """Yield the status and the journal's content of each search that is recent or runs."""
        names = [name for name in searches_of(self._home) if self._is_recent(name)]
        self._tailed = {
            name: self._tailed.get(name) or TailedSearch(self._home.search(name)) for name in names
        }
        for name, tailed in self._tailed.items():
            try:
                status = SearchStatus.of(self._home, name, tailed)
            except TunerError:  # deleted meanwhile
                continue
            yield status, None if status.problem else tailed.search

    def _is_recent(self, name: str) -> bool:
        folder = self._home.search(name)
        try:
            written = (folder / JOURNAL_FILE).stat().st_mtime
        except OSError:
            return False
        return time.time() - written < _RECENT_SECONDS or is_running(folder)


def _by_state(search: Search) -> Counter[str]:
    """Return the number of trials in each state."""
    board = search.board
    counts = Counter(
        str(trial.outcome.kind) if trial.outcome else _PAUSED if trial.is_paused else _TRAINING
        for trial in board.trials.values()
    )
    counts[_WAITING] = max(0, board.num_trials - len(board.trials))
    return counts
