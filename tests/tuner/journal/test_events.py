from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from model.engine.report import Report, Status
from model.spec.trial import InitFrom
from tests.conftest import MakeSpec
from tests.tuner.journal.raw_lines import raw_line, values_of, write_lines
from tests.tuner.simulated_search import FACTS, space_of
from tuner.conductor.clock import SECONDS
from tuner.conductor.outcome import DIVERGED, FINISHED, Outcome
from tuner.errors import JournalError
from tuner.journal.events import (
    Event,
    MessageSent,
    NodeLost,
    Reported,
    SearchBegun,
    SearchEdited,
    SearchStalled,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialFailed,
    TrialResumed,
    WorkersChanged,
)
from tuner.journal.journal import JOURNAL_FILE, Journal, read_journal
from tuner.journal.lines import line_of
from tuner.schedulers.scheduler import Decision

REPORT = Report("0", Status.TRAINING, 8, 64, 3.0, 3.0, 0.1, 0.01)


@pytest.fixture
def events(tmp_path: Path, make_spec: MakeSpec) -> Mapping[str, Event]:
    """One event of each kind, in an order that a search may have."""
    space = space_of(tmp_path, "trials: 3")
    label = next(p.label for p in space.searched if p.distribution.kind == "log")
    made: tuple[Event, ...] = (
        SearchBegun(space, "name: lm", FACTS),
        SearchEdited(space, "name: lm"),
        SessionBegun({"torch": "2"}, 2, in_order=True),
        TrialBegun(0, {label: 0.01}, make_spec()),
        Reported(0, REPORT, Decision.PAUSE),
        TrialResumed(0),
        TrialFailed(0, "x"),
        WorkersChanged(1, 2),
        NodeLost("f00", "b (10.0.0.2)"),
        SearchStalled(901.5, "gpu-7"),
        MessageSent("worker 0 has restarted"),
        SessionEnded("finished", {"x": 1.0}, 0, 1.0, (0,)),
    )
    return {event.event: event for event in made}


def test_every_kind_of_event_comes_back_and_is_written_back_identically(
    tmp_path: Path, events: Mapping[str, Event]
) -> None:
    assert {*map(type, events.values())} == {*get_args(Event)}
    journal = Journal.open(tmp_path / "lm-1")
    times = [journal.append(event) for event in events.values()]
    journal.close()
    back = read_journal(tmp_path / "lm-1")
    assert back == [replace(e, time_ms=t) for e, t in zip(events.values(), times, strict=True)]
    before = ""
    for event, line in zip(back, journal.path.read_bytes().splitlines(True), strict=True):
        again, entry = line_of(event, before)
        assert again == line
        before = entry.digest


def test_events_come_back_with_all_values(tmp_path: Path, make_spec: MakeSpec) -> None:
    start = InitFrom(sha256="0" * 64, optimizer_steps=12)
    facts = replace(FACTS, init_from=start)
    events: list[Event] = [
        SearchBegun(space_of(tmp_path, "trials: 3"), "name: lm", facts, "lm-0/3"),
        SessionBegun({"torch": "2.13.0"}, 3, in_order=False),
        SessionBegun({"torch": "2.13.0"}, 3, in_order=True, epoch=2, clock=SECONDS),
        TrialBegun(0, {"α": 0.1, "B": 8, "tied": True, "optimizer": "adamw"}, make_spec(),
                   parent=2, confirms=1, is_reused=True, same_as=3, environment={"torch": "1"}),
        Reported(0, REPORT),
        Reported(0, replace(REPORT, status=Status.DIVERGED), Decision.STOP, DIVERGED),
        Reported(0, replace(REPORT, status=Status.FINISHED), Decision.STOP, FINISHED),
        Reported(0, REPORT, Decision.STOP, Outcome.stopped(2)),
        SessionEnded("finished", {"x": 1.0}, 0, 2.5, (0,), "patience", "max_seconds", ("More.",)),
        SessionEnded("interrupted", {"x": 1.0}, 0, 2.5, (0,), weights={0: "ab"}),
    ]  # fmt: skip
    journal = Journal.open(tmp_path / "lm-1")
    times = [journal.append(event) for event in events]
    journal.close()
    back = read_journal(tmp_path / "lm-1")
    assert back == [replace(e, time_ms=t) for e, t in zip(events, times, strict=True)]
    trial, report = back[3], back[7]
    assert isinstance(trial, TrialBegun)
    assert [type(value) for value in trial.draw.values()] == [float, int, bool, str]
    assert isinstance(report, Reported)
    assert (report.outcome and report.outcome.kind, report.decision) == (
        Outcome.stopped(2).kind, Decision.STOP,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("search", {"space_text": 5}),
        ("search", {"text": "a key of another version"}),
        ("search", {"facts": {**FACTS.__dict__, "train_size": "many", "init_from": None}}),
        ("search", {"time_ms": -1}),
        ("search", {"time_ms": 10**15}),
        ("session", {"slots": 0}),
        ("session", {"slots": 10**9}),
        ("session", {"environment": {"torch": 2}}),
        ("session", {"clock": "sundial"}),
        ("session", {"clock": []}),
        ("trial", {"number": "x"}),
        ("trial", {"number": 2**70}),
        ("trial", {"draw": {"x": []}}),
        ("trial", {"parent": 1.5}),
        ("report", {"report": {"val_loss": 3.0}}),
        ("report", {"report": {**asdict(REPORT), "val_loss": "low"}}),
        ("report", {"report": {**asdict(REPORT), "status": "sleeping"}}),
        ("report", {"report": {**asdict(REPORT), "step": 1.5}}),
        ("report", {"report": {**asdict(REPORT), "step": 2**70}}),
        ("report", {"report": {**asdict(REPORT), "val_loss": {"$float": []}}}),
        ("report", {"decision": "wait"}),
        ("report", {"outcome": "stopped at report x"}),
        ("report", {"outcome": "halted at report 3"}),
        ("failure", {"reason": None}),
        ("workers", {"up": -1}),
        ("stall", {"seconds": "long"}),
        ("end", {"kept": ["x"]}),
        ("end", {"status": "done"}),
        ("end", {"summary": {"x": "y"}}),
        ("end", {"summary": {"wall_seconds": {"$float": "inf"}}}),
        ("end", {"event": None}),
        ("end", {"event": "verdict"}),
    ],
)  # fmt: skip
def test_values_that_no_driver_writes_are_refused_in_one_sentence(
    tmp_path: Path, events: Mapping[str, Event], kind: str, change: Mapping[str, Any]
) -> None:
    good, first = values_of(events[kind]), values_of(events["search"])
    assert len(read_journal(write_lines(tmp_path / "lm-1", first, good))) == 2
    folder = write_lines(tmp_path / "lm-1", first, {**good, **change}, good)
    for read in (read_journal, Journal.open):
        with pytest.raises(
            JournalError,
            match=r"lm-1 was written by another version of tuner, or edited|is damaged",
        ) as error:
            read(folder)
        assert "journal.jsonl:2" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("distribution", [{"low": 0.5, "high": 0.1}, {"low": -1.0}])
def test_impossible_ranges_are_refused(
    tmp_path: Path, events: Mapping[str, Event], distribution: Mapping[str, float]
) -> None:
    values = json.loads(json.dumps(values_of(events["search"])))
    parameter = next(
        p for p in values["space"]["hyperparameters"].values()
        if p["distribution"]["kind"] == "log"
    )  # fmt: skip
    parameter["distribution"] |= distribution
    with pytest.raises(JournalError, match="another version"):
        read_journal(write_lines(tmp_path, values))
    parameter["distribution"] |= {"low": 0.1, "high": 0.5}
    assert read_journal(write_lines(tmp_path, values))
    parameter["name"] = "learning_rat"
    with pytest.raises(JournalError, match="another version"):
        read_journal(write_lines(tmp_path, values))


def test_deep_line_is_refused(tmp_path: Path) -> None:
    body = b'{"event":"search","x":' + b"[" * 100_000
    line = b'%s,"crc":"%08x"}\n' % (body, zlib.crc32(body))
    (tmp_path / JOURNAL_FILE).write_bytes(line * 2)
    with pytest.raises(JournalError, match="is damaged"):
        read_journal(tmp_path)


def test_journal_names_its_format_in_its_first_line(
    tmp_path: Path, events: Mapping[str, Event]
) -> None:
    good = values_of(events["search"])
    write_lines(tmp_path, good)
    assert b'"format":1' in (tmp_path / JOURNAL_FILE).read_bytes()
    for version, problem in (
        (2, r"has format 2, and this tuner reads formats up to 1: a newer .* upgrade with 'pip "),
        ("x", "has format x, and this tuner reads"),
        (None, "was written before tuner 0.1.0, whose journals are not read; search again"),
    ):
        values = {**good, "shape": "unknown", **({} if version is None else {"format": version})}
        (tmp_path / JOURNAL_FILE).write_bytes(raw_line(values))
        for read in (read_journal, Journal.open):
            with pytest.raises(JournalError, match=problem):
                read(tmp_path)
        assert (tmp_path / JOURNAL_FILE).read_bytes() == raw_line(values)
