"""Metrics for Prometheus, read by Prometheus' own parser from a server that listens."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from tests.tuner.simulated_search import Simulation
from tuner.cli import main
from tuner.home.home import Home
from tuner.jobs.metrics import HomeMetrics
from tuner.jobs.status import SearchStatus
from tuner.journal.events import Event, SessionEnded
from tuner.journal.follower import Cursor
from tuner.journal.journal import Journal
from tuner.tracking.projection import CURSOR


def scraped(port: int) -> dict[tuple[str, str], float]:
    """Return name and second label (or "") → value, of the search lm-1."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("search") == "lm-1"
            (second,) = labels.values() or ("",)
            found[sample.name, second] = sample.value
    return found


def test_metrics_follow_a_growing_journal(simulation: Simulation, tmp_path: Path) -> None:
    home, events = Home.of(tmp_path / "home"), [*simulation.events, SessionEnded("finished")]
    registry = CollectorRegistry()
    registry.register(HomeMetrics(home))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        port = server.server_port
        assert scraped(port) == {}
        journal = Journal.open(home.search("lm-1"))
        _append(journal, events[: len(events) // 2])
        cursor = Cursor(home.search("lm-1"), CURSOR)
        cursor.write(len(events) // 2, journal.digest)
        half = scraped(port)
        status = SearchStatus.of(home, "lm-1")
        assert half["tuner_search_state", "running"] == 1  # this process holds the journal
        assert sum(v for (name, _), v in half.items() if name == "tuner_search_state") == 1
        assert half["tuner_trained_tokens_total", ""] == status.tokens > 0
        assert half["tuner_trials", "training"] > 0
        assert sum(v for (name, _), v in half.items() if name == "tuner_trials") == status.trials
        _append(journal, events[len(events) // 2 :])
        journal.close()
        cursor.write(len(events) - 3, journal.digest)
        whole = scraped(port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    board = simulation.conductor.board
    assert whole["tuner_search_state", "finished"] == 1
    assert whole["tuner_trials", "finished"] == sum(t.has_finished for t in board.trials.values())
    assert whole["tuner_trials", "stopped"] == sum(t.is_stopped for t in board.trials.values())
    assert whole["tuner_trials", "waiting"] == whole["tuner_trials", "training"] == 0
    assert whole["tuner_trained_tokens_total", ""] == board.tokens
    assert (half["tuner_unsynced_events", ""], whole["tuner_unsynced_events", ""]) == (0, 3)
    assert board.best is not None
    assert whole["tuner_best_objective", "val_loss"] == board.value(board.best)
    newest = ("tuner_newest_event_timestamp_seconds", "")
    assert whole[newest] >= half[newest] > 0


def _append(journal: Journal, events: Sequence[Event]) -> None:
    for event in events:
        journal.append(event)


def test_a_taken_port_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["metrics", "--port", port, "--home", str(tmp_path)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; give another --port" in (
        capfd.readouterr().err
    )
