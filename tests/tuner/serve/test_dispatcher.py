"""What is wanted becomes what is, whatever dies in between."""

from __future__ import annotations

import sqlite3
import time
from types import SimpleNamespace

import pytest

from tests.tuner.serve.conftest import SPACE, Place
from tuner.errors import TunerError
from tuner.jobs import status
from tuner.journal.journal import Journal
from tuner.lease.folder import newest
from tuner.lease.stop_request import StopRequest, request_stop, stop_request
from tuner.serve import queue
from tuner.serve.database import Database
from tuner.serve.dispatcher import Dispatcher
from tuner.serve.machine import Machine


def test_search_runs_when_devices_are_free(place: Place) -> None:
    for seed in range(3):
        place.submit(seed, name=f"s{seed}")
    place.dispatcher.tick()
    assert place.starts == ["s0", "s1"]
    first = place.drivers["s0"]
    folder = place.home.root / "serve"
    assert first.arguments == [
        "--name", "s0", "--space", str(folder / "s0.yaml"), "--workers", "1"
    ]  # fmt: skip
    assert "seed: 0" in (folder / "s0.yaml").read_text()
    waiting = place.client.get("/api/v1/searches/s2").json()
    assert (waiting["state"], waiting["position"]) == ("waiting", 1)
    assert waiting["waits_for"] == "it needs 1 device, 0 of them free; s0 and s1 run"
    first.end("finished")
    place.dispatcher.tick()
    assert place.starts == ["s0", "s1", "s2"]
    assert [place.state(f"s{seed}") for seed in range(3)] == ["finished", "running", "running"]


def test_space_without_a_name_is_called_like_others_and_not_like_its_file(place: Place) -> None:
    text = (SPACE % 1).replace("name: lm\n", "")
    assert place.client.post("/api/v1/searches", content=text).json()["name"] == "search-1"
    place.dispatcher.tick()
    assert "--set name=search" in " ".join(place.drivers["search-1"].arguments)


def test_pause_keeps_the_place_and_resume_goes_on(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    assert place.client.post("/api/v1/searches/a/pause").json()["state"] == "pausing"
    place.dispatcher.tick()
    holder = newest(place.home.search("a"))
    assert holder is not None
    assert stop_request(place.home.search("a"), holder.epoch) is StopRequest.SOON
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.state("a") == "paused"
    place.dispatcher.tick()
    assert place.starts == ["a"]
    place.client.post("/api/v1/searches/a/resume")
    place.dispatcher.tick()
    assert place.starts == ["a", "a"]
    assert place.state("a") == "running"


def test_higher_class_takes_the_devices_and_gives_them_back(place: Place) -> None:
    for seed, name in enumerate(["old", "new"]):
        place.submit(seed, name=name)
        place.at += 1
        place.dispatcher.tick()
    place.submit(9, name="urgent", priority="urgent")
    place.dispatcher.tick()
    urgent = place.client.get("/api/v1/searches/urgent").json()
    assert urgent["waits_for"] == "new is paused for it"
    place.drivers["new"].end("interrupted")
    place.dispatcher.tick()
    assert place.starts == ["old", "new", "urgent"]
    assert place.state("new") == "waiting"
    place.drivers["urgent"].end("finished")
    place.dispatcher.tick()
    assert place.starts[-1] == "new"


def test_elastic_search_goes_on_with_fewer_devices_and_later_with_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time from its journal, on devices that it had; the server may be killed meanwhile."""
    monkeypatch.setattr(queue, "_WORTH_SECONDS", 0.0)
    text = (SPACE % 1).replace("workers: 1", "workers: 2")
    query = {"name": "a", "least": "1"}
    assert place.client.post("/api/v1/searches", content=text, params=query).status_code == 201
    place.dispatcher.tick()
    assert place.drivers["a"].arguments[-2:] == ["--workers", "2"]
    place.submit(2, name="b")
    place.dispatcher.tick()
    assert place.dispatcher.waits["b"].reason == "a will soon make room"
    place.kill()
    place.open()
    place.dispatcher.tick()
    assert place.starts == ["a"]
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.starts == ["a", "a", "b"]
    assert place.drivers["a"].arguments == ["--resume", "a", "--workers", "1"]
    place.drivers["b"].end("finished")
    place.at += 1000
    place.dispatcher.tick()
    entry = place.database.search("a")
    assert entry is not None
    assert (entry.devices, entry.asked) == ("0,1", "keep 2")
    place.submit(3, name="c")
    place.dispatcher.tick()
    assert place.starts[-1] == "b", "the devices are promised to a, which gives one back again"
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.drivers["a"].arguments[-2:] == ["--workers", "2"]
    place.drivers["a"].end("finished")
    place.dispatcher.tick()
    assert (place.state("a"), place.starts[-1]) == ("finished", "c")


def test_restarted_server_finds_its_drivers(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    place.kill()
    place.open()
    place.dispatcher.tick()
    assert place.starts == ["a"], "nothing runs twice"
    assert place.state("a") == "running"
    place.drivers["a"].end("finished")
    place.dispatcher.tick()
    assert place.state("a") == "finished"


def test_server_killed_while_a_driver_starts_waits_for_its_lease(place: Place) -> None:
    place.begins_at_once = False
    place.submit(name="a")
    place.dispatcher.tick()
    place.kill()
    place.open()
    place.at += 5
    place.dispatcher.tick()
    assert (place.starts, place.state("a")) == (["a"], "starting")
    place.at += 100  # it was killed with the server, before it had its lease
    place.dispatcher.tick()
    assert place.starts == ["a", "a"]


def test_killed_driver_is_started_again_and_a_dying_one_fails(place: Place) -> None:
    place.at = 4e9  # no event of the journal is newer than the starts
    place.submit(name="a")
    place.dispatcher.tick()
    for _ in range(2):
        place.drivers["a"].end(exit_status=-9)
        place.dispatcher.tick()
    assert place.starts == ["a", "a", "a"]
    place.drivers["a"].end(exit_status=-9)
    log = place.home.log("a")
    log.parent.mkdir()
    log.write_text("some line\ntuner search: the disk is gone\n")
    place.dispatcher.tick()
    failed = place.client.get("/api/v1/searches/a").json()
    assert (failed["state"], failed["problem"]) == ("failed", "tuner search: the disk is gone")
    assert len(place.starts) == 3
    place.client.post("/api/v1/searches/a/resume")
    place.dispatcher.tick()
    assert place.state("a") == "running"


def test_bad_input_fails_at_once(place: Place) -> None:
    place.begins_at_once = False
    place.submit(name="a")
    place.dispatcher.tick()
    place.drivers["a"].exit_status = 2
    place.dispatcher.tick()
    assert place.state("a") == "failed"


def test_stop_of_a_command_is_not_undone(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    holder = newest(place.home.search("a"))
    assert holder is not None
    request_stop(place.home.search("a"), holder, StopRequest.SOON)
    place.drivers["a"].end("interrupted")
    place.dispatcher.tick()
    assert place.state("a") == "stopped"


def test_search_of_a_command_takes_its_devices_and_is_not_paused(place: Place) -> None:
    outside = Journal.open(place.home.search("outside"))
    for event in place.events:
        outside.append(event)
    place.submit(0, name="a")
    place.submit(1, name="b", priority="urgent")
    place.dispatcher.tick()
    assert place.starts == ["b"]
    assert place.state("outside") == "running"
    assert not place.dispatcher.waits["a"].reason.startswith("outside is paused")
    outside.close()


def test_driver_that_hangs_is_shown_and_keeps_its_devices_until_it_is_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    later = SimpleNamespace(time=lambda: time.time() + 600)  # its heartbeats are of before
    monkeypatch.setattr(status, "time", later)
    place.client.post("/api/v1/searches/a/pause")
    place.dispatcher.tick()
    shown = place.client.get("/api/v1/searches/a").json()
    assert shown["state"] == "pausing"
    assert "not heard for 1" in shown["driver"]
    place.client.post("/api/v1/searches/a/resume")
    place.drivers["a"].end(exit_status=-9)
    place.dispatcher.tick()
    assert (place.starts, place.state("a")) == (["a", "a"], "running")


def test_clock_that_jumps_by_a_day_starts_nothing_twice(place: Place) -> None:
    for seed in range(3):
        place.submit(seed, name=f"s{seed}")
    place.dispatcher.tick()
    used = place.database.use()
    for jump in (86_400, -2 * 86_400):
        place.at += jump
        place.dispatcher.tick()
        states = [place.state(f"s{seed}") for seed in range(3)]
        assert states == ["running", "running", "waiting"]
    assert place.starts == ["s0", "s1"]
    assert all(use.seconds < 60 for use in (*used.values(), *place.database.use().values()))
    place.drivers["s0"].end("finished")
    place.dispatcher.tick()
    assert place.starts[-1] == "s2"


def test_second_server_does_not_schedule(place: Place) -> None:
    other = Dispatcher(place.home, place.database, place.searches, Machine(2), place._start)
    place.dispatcher.tick()
    place.submit(name="a")
    other.tick()
    assert place.starts == []
    place.dispatcher.tick()
    assert place.starts == ["a"]
    place.dispatcher.close()
    place.drivers["a"].end("finished")
    other.tick()
    assert place.state("a") == "finished", "it has taken over"
    other.close()


def test_full_disk_stops_no_search_and_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.submit(name="a")

    def full(self: Database, name: str, **values: object) -> bool:
        raise TunerError("the database cannot be used: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "change", full)
        with pytest.raises(TunerError, match="disk is full"):
            place.dispatcher.tick()
        answer = place.client.post("/api/v1/searches/a/pause")
        assert answer.status_code == 503
        assert "disk is full" in answer.json()["message"]
    assert place.starts == [], "what is not written is not done"
    place.dispatcher.tick()
    assert place.starts == ["a"]


def test_gpus_are_shared_by_their_names(place: Place) -> None:
    machine = Machine(2, ("3", "5"))
    place.machine = machine
    place.kill()
    place.open()
    place.submit(0, name="a")
    place.submit(1, name="b")
    place.dispatcher.tick()
    assert [driver.environment for driver in place.drivers.values()] == [
        {"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}
    ]  # fmt: skip


def test_damaged_database_costs_the_queue_only(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    place.kill()
    path = place.home.root / "serve" / "queue.db"
    path.write_bytes(b"nonsense" * 1000)
    place.open()
    assert place.database.was_damaged is not None
    assert place.database.was_damaged.read_bytes().startswith(b"nonsense")
    place.dispatcher.tick()
    assert place.state("a") == "running"


def test_database_of_a_newer_version_is_refused(place: Place) -> None:
    place.kill()
    with sqlite3.connect(place.home.root / "serve" / "queue.db") as database:
        database.execute("UPDATE serve_format SET format = 99")
    database.close()
    with pytest.raises(TunerError, match="has format 99"):
        place.open()
    with sqlite3.connect(place.home.root / "serve" / "queue.db") as database:
        database.execute("UPDATE serve_format SET format = 1")
    database.close()
    place.open()
