"""Metrics for Prometheus, read by Prometheus' own parser from the server."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from tests.tuner.serve.conftest import Place
from tests.tuner.simulated_search import Simulation
from tuner.jobs.status import SearchStatus
from tuner.journal.events import Event, SessionEnded
from tuner.journal.follower import Cursor
from tuner.journal.journal import Journal
from tuner.serve.access import new_user
from tuner.tracking.projection import CURSOR


def scraped(place: Place) -> dict[tuple[str, str], float]:
    """Return name and second label (or "") → value, of the search lm-1 and of the queue."""
    found = {}
    for family in text_string_to_metric_families(place.client.get("/metrics").text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("search", "lm-1") == "lm-1"
            (second,) = labels.values() or ("",)
            found[sample.name, second] = sample.value
    return found


def test_metrics_follow_a_growing_journal(simulation: Simulation, place: Place) -> None:
    home, events = place.home, [*simulation.events, SessionEnded("finished")]
    before = scraped(place)
    assert {name for name, _ in before} == {
        "tuner_queue_waiting", "tuner_queue_devices", "tuner_queue_devices_used"
    }  # fmt: skip
    journal = Journal.open(home.search("lm-1"))
    _append(journal, events[: len(events) // 2])
    cursor = Cursor(home.search("lm-1"), CURSOR)
    cursor.write(len(events) // 2, journal.digest)
    half = scraped(place)
    status = SearchStatus.of(home, "lm-1")
    assert half["tuner_search_state", "running"] == 1  # this process holds the journal
    assert sum(v for (name, _), v in half.items() if name == "tuner_search_state") == 1
    assert half["tuner_trained_tokens_total", ""] == status.tokens > 0
    assert half["tuner_trials", "training"] > 0
    assert sum(v for (name, _), v in half.items() if name == "tuner_trials") == status.trials
    _append(journal, events[len(events) // 2 :])
    journal.close()
    cursor.write(len(events) - 3, journal.digest)
    whole = scraped(place)
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


def test_metrics_need_a_token_where_there_are_users(place: Place) -> None:
    place.submit(name="hidden", visibility="private")
    token = new_user(place.database, "watch", "viewer")
    place.kill()
    place.open()  # users are known for a second
    assert place.client.get("/metrics").status_code == 401
    answer = place.client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert "hidden" not in answer.text
