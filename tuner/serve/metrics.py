"""The searches of a home and the queue as metrics of Prometheus.

They come from the journals, so they tell of all drivers, wherever they run, and also after one
died. Names and units follow https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tuner.journal.follower import Cursor
from tuner.serve.queue import Priority
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import STATES, SearchView
from tuner.tracking.projection import CURSOR

_NAMES = {  # attribute of the view → name, help
    "tokens_per_second": ("tuner_tokens_per_second", "Training tokens per second of late."),
    "seconds_left": ("tuner_left_seconds", "Estimate of the remaining time."),
    "newest": (
        "tuner_newest_event_timestamp_seconds",
        "Time of the newest event in the journal: time() minus it is the journal's lag.",
    ),
}
_RECENT_SECONDS = 86_400.0


def exposition(service: Service, user: User) -> bytes:
    """Return the metrics of the searches that a user may see, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_ServiceMetrics(service, user))
    return generate_latest(registry)


class _ServiceMetrics(Collector):
    """Searches that run or wait, or whose journal grew within a day, and the queue."""

    def __init__(self, service: Service, user: User) -> None:
        self._service, self._user = service, user

    def describe(self) -> list[Metric]:
        """Return nothing: what there is depends on the searches."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        service = self._service
        views = service.views(service.names(self._user))
        recent = [view for view in views if _is_recent(view)]
        yield from self._of_searches(recent)
        waiting = Counter(view.priority for view in views if view.state == "waiting")
        queue = GaugeMetricFamily(
            "tuner_queue_waiting", "Searches that wait for devices.", labels=["priority"]
        )
        for priority in Priority:
            name = priority.name.lower()
            queue.add_metric([name], waiting[name])
        devices = GaugeMetricFamily("tuner_queue_devices", "Devices of the queue.")
        devices.add_metric([], service.machine.number)
        used = GaugeMetricFamily("tuner_queue_devices_used", "Devices that searches have.")
        used.add_metric([], sum(len(e.device_numbers) for e in service.database.active()))
        yield from (queue, devices, used)

    def _of_searches(self, views: list[SearchView]) -> Iterator[Metric]:
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
        for view in views:
            for state in STATES:
                states.add_metric([view.name, state], float(state == view.state))
            counts, num_events = self._service.searches.counts(view.name)
            if not num_events:
                continue
            for state, count in counts.items():
                trials.add_metric([view.name, state], count)
            tokens.add_metric([view.name], view.tokens)
            sent = Cursor(self._service.home.search(view.name), CURSOR).read()
            unsynced.add_metric([view.name], num_events - (sent[0] if sent else 0))
            if view.best is not None:
                best.add_metric([view.name, view.metric], view.best)
            for name, gauge in others.items():
                value = getattr(view, name)
                if value is not None:
                    gauge.add_metric([view.name], value)
        yield from (states, trials, best, tokens, unsynced, *others.values())


def _is_recent(view: SearchView) -> bool:
    newest = view.newest or view.submitted or 0.0
    return bool(view.driver) or view.state == "waiting" or time.time() - newest < _RECENT_SECONDS
