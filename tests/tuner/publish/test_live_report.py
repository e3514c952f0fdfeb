"""Reports that are attached while a search trains."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.driver.sync import sync
from tuner.home import Home
from tuner.journal.events import SessionEnded
from tuner.journal.journal import Journal
from tuner.publish import live_report as module
from tuner.tracking.record import Record
from tuner.tracking.tags import REPORT_FILE, Tag


def test_process_attaches_the_report_of_a_running_search(
    tmp_path: Path, store: str, open_tracker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(Conductor(space_of(tmp_path, "trials: 12"), FACTS, 3))
    for _ in range(10):
        simulation.step()
    home, tracker = Home(tmp_path, store), open_tracker("lm-1")
    with closing(Journal.open(home.search("lm-1"))) as journal, closing(tracker):
        for event in simulation.events:
            journal.append(event)
        monkeypatch.setattr("os.nice", lambda _: None)  # of the tests' process
        monkeypatch.setattr("sys.stdin", StringIO(json.dumps([str(tmp_path), store, "lm-1"])))
        assert module.main() == 0
        path = Record(store).download(tracker.run_id, REPORT_FILE, str(tmp_path))
    assert Record(store).search("lm-1").tags[Tag.REPORT] == "running"
    assert path is not None
    text = path.read_text(encoding="utf-8")
    assert "lm-1" in text
    assert text.rstrip().endswith("</html>")


def test_sync_replaces_the_report_of_a_search_whose_driver_was_killed(
    tmp_path: Path, store: str, open_tracker: Any
) -> None:
    simulation = Simulation(Conductor(space_of(tmp_path, "trials: 12"), FACTS, 3))
    for _ in range(10):
        simulation.step()
    home = Home(tmp_path, store)
    with closing(open_tracker("lm-1")), closing(Journal.open(home.search("lm-1"))) as journal:
        for event in simulation.events:
            journal.append(event)
        journal.append(SessionEnded("interrupted", {"best_val_loss": 3.0}, best=0))
    assert REPORT_FILE in sync(home, "lm-1").files
    assert sync(home, "lm-1").files == ()
    record = Record(store)
    search = record.search("lm-1")
    assert search.tags[Tag.REPORT] == "interrupted"
    record.client.set_tag(search.run_id, Tag.REPORT, "running")
    assert sync(home, "lm-1").files == (REPORT_FILE,)
    assert record.search("lm-1").tags[Tag.REPORT] == "interrupted"


def test_process_begins_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, asked = tmp_path / "python", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho $* $(cat) >> {asked}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    monkeypatch.setattr(module, "_SHARE", 1.0)
    with module.live_report(Home(tmp_path, "sqlite:///store"), "lm-1", seconds=0.05):
        end = time.monotonic() + 60
        while not (asked.exists() and len(asked.read_text().splitlines()) > 2):
            assert time.monotonic() < end
            time.sleep(0.05)
    line = f'-P -m tuner.publish.live_report ["{tmp_path}", "sqlite:///store", "lm-1"]'
    assert set(asked.read_text().splitlines()) == {line}


@pytest.mark.parametrize("delay", [0.0, 0.6])
def test_nothing_waits_for_a_report(delay: float, tmp_path: Path) -> None:
    """Also if it is being made, or cannot be made: there is no such search."""
    home = Home(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    with module.live_report(home, "lm-1", seconds=0.05):
        time.sleep(delay)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    assert not [t for t in threading.enumerate() if t.name == "live report"]
