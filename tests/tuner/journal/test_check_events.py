"""Lines of a journal whose checksum fits, and that no driver writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.simulated_search import FACTS, space_of
from tuner.conductor.outcome import Outcome
from tuner.errors import JournalError
from tuner.journal.check_events import check_order
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEnded,
    TrialFailed,
)
from tuner.journal.journal import _line, read_journal

Write = Callable[..., Path]
REPORT = Report("0", Status.TRAINING, 8, 64, 3.0, 3.0, 0.1, 0.01)


@pytest.fixture
def events(tmp_path: Path, make_spec: MakeSpec) -> Mapping[str, Event]:
    """One event of each kind."""
    space = space_of(tmp_path, "trials: 3")
    label = next(p.label for p in space.searched if p.distribution.kind == "log")
    made = (
        SearchBegun(space, "name: lm", FACTS),
        SessionBegun({"torch": "2"}, 2, in_order=True),
        TrialBegun(0, {label: 0.01}, make_spec()),
        Reported(0, REPORT),
        TrialFailed(0, "x"),
        TrialEnded(0, Outcome.stopped(1)),
        SessionEnded("finished", {"x": 1.0}, 0, 1.0, [0]),
    )
    return {event.kind: event for event in made}


def lines(folder: Path, *values: Mapping[str, Any]) -> Path:
    (folder / "journal.jsonl").write_bytes(b"".join(map(_line, values)))
    return folder


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("search", {"rules": "x"}),
        ("search", {"space_text": 5}),
        ("search", {"facts": {**FACTS.__dict__, "train_size": "many", "init_from": None}}),
        ("search", {"time_ms": -1}),
        ("search", {"time_ms": 10**15}),
        ("session", {"slots": 0}),
        ("session", {"slots": 10**9}),
        ("session", {"environment": {"torch": 2}}),
        ("session", {"clock": "sundial"}),
        ("session", {"clock": []}),
        ("trial", {"number": "0"}),
        ("trial", {"number": 2**70}),
        ("trial", {"draw": {"x": []}}),
        ("trial", {"parent": 1.5}),
        ("report", {"val_loss": "low"}),
        ("report", {"step": 1.5}),
        ("report", {"val_loss": {"$float": []}}),
        ("outcome", {"outcome": "stopped at report x"}),
        ("end", {"kept": ["0"]}),
        ("end", {"summary": {"x": "y"}}),
        ("end", {"summary": {"wall_seconds": float("inf")}}),
        ("end", {"event": None}),
    ],
)
def test_values_of_other_kinds_are_refused(
    tmp_path: Path, events: Mapping[str, Event], kind: str, change: Mapping[str, Any]
) -> None:
    good = {**events[kind].as_json, "time_ms": 1}
    assert len(read_journal(lines(tmp_path, good))) == 1
    with pytest.raises(JournalError, match=r"was edited, restore it|is damaged"):
        read_journal(lines(tmp_path, {**good, **change}, good))


@pytest.mark.parametrize(
    ("distribution", "problem"),
    [
        ({"low": 0.5, "high": 0.1}, "another version"),
        ({"low": -1.0}, "another version"),
    ],
)
def test_impossible_ranges_are_refused(
    tmp_path: Path, events: Mapping[str, Event], distribution: Mapping[str, float], problem: str
) -> None:
    value = {**events["search"].as_json, "time_ms": 1}
    space = json.loads(value["space"])
    parameter = next(
        p for p in space["hyperparameters"].values() if p["distribution"]["kind"] == "log"
    )
    parameter["distribution"] |= distribution
    with pytest.raises(JournalError, match=problem):
        read_journal(lines(tmp_path, {**value, "space": json.dumps(space)}))
    parameter["distribution"] |= {"low": 0.1, "high": 0.5}
    parameter["name"] = "learning_rat"
    with pytest.raises(JournalError, match=problem):
        read_journal(lines(tmp_path, {**value, "space": json.dumps(space)}))


def test_deep_line_is_refused(tmp_path: Path) -> None:
    import zlib

    body = b'{"event":"search","x":' + b"[" * 100_000
    line = b'%s,"crc":"%08x"}\n' % (body, zlib.crc32(body))
    (tmp_path / "journal.jsonl").write_bytes(line * 2)
    with pytest.raises(JournalError, match="is damaged"):
        read_journal(tmp_path)


def test_events_follow_each_other(events: Mapping[str, Event]) -> None:
    check_order(list(events.values()))
    search, session, trial, report, failure, outcome, end = events.values()
    assert isinstance(trial, TrialBegun)
    label = next(iter(trial.draw))
    for order, problem in (
        ([session, search], "event 1: the search has not begun"),
        ([search, report], "event 2: trial 0 has not begun"),
        ([search, failure], "trial 0 has not begun"),
        ([search, session, outcome], "event 3: trial 0 has not begun"),
        ([search, end], "trial 0 has not begun"),
        ([search, replace(trial, parent=7)], "trial 7 has not begun"),
        ([search, replace(trial, draw={label: "x"})], f"{label} is 'x'"),
    ):
        with pytest.raises(JournalError, match=problem):
            check_order(order)
