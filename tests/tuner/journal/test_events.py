from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.spec.trial import InitFrom
from tests.conftest import MakeSpec
from tests.tuner.journal.journal_of_61b80c3 import LINES
from tests.tuner.simulated_search import FACTS, space_of
from tuner.conductor.clock import SECONDS, TOKENS
from tuner.conductor.outcome import Outcome
from tuner.errors import JournalError
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
from tuner.journal.journal import Journal, read_journal
from tuner.journal.lines import _CRC
from tuner.journal.lines import line_of as text_of

KINDS = (
    SearchBegun, SessionBegun, TrialBegun, Reported, TrialEnded, SessionEnded, Reported,
    TrialFailed, TrialEnded, SessionEnded,
)  # fmt: skip


def write(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def line_of(event: Event) -> str:
    return text_of({**event.as_json, "time_ms": event.time_ms}).decode().rstrip("\n")


def test_events_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    events = read_journal(write(tmp_path, *LINES))
    assert tuple(map(type, events)) == KINDS
    assert [event.time_ms for event in events] == [json.loads(x)["time_ms"] for x in LINES]


def test_events_of_an_earlier_version_have_typed_values(tmp_path: Path) -> None:
    search, session, trial, report, ended, end, *_ = read_journal(write(tmp_path, *LINES))
    assert isinstance(search, SearchBegun)
    assert (search.space.name, search.facts.vocab_size, search.rules) == ("small", 300, 1)
    assert isinstance(session, SessionBegun)
    assert (session.slots, session.in_order, session.clock) == (1, True, TOKENS)
    assert isinstance(trial, TrialBegun)
    assert trial.spec.hyperparameters.max_learning_rate == 0.001
    assert isinstance(report, Reported)
    assert (report.number, report.report.step) == (0, 8)
    assert isinstance(ended, TrialEnded)
    assert ended.outcome == Outcome.stopped(3)
    assert isinstance(end, SessionEnded)
    assert (end.best, end.kept, end.limit) == (3, [3], None)


def test_events_come_back_from_a_journal(tmp_path: Path, make_spec: MakeSpec) -> None:
    start = InitFrom(sha256="0" * 64, optimizer_steps=12)
    events: list[Event] = [
        SearchBegun(space_of(tmp_path, "trials: 3"), "name: lm", replace(FACTS, init_from=start)),
        SessionBegun({"torch": "2.13.0"}, 3, in_order=False),
        SessionBegun({"torch": "2.13.0"}, 3, in_order=True, epoch=2, clock=SECONDS),
        TrialBegun(0, {"α": 0.1}, make_spec(), parent=2, confirms=1, is_reused=True),
        TrialEnded(0, Outcome.same_as(2)),
        SessionEnded("finished", {"x": 1.0}, 0, 2.5, [0], "patience", "max_seconds", ["More."]),
        SessionEnded("finished", {"x": 1.0}, 0, 2.5, [0], advice=["More."], weights={0: "ab"}),
    ]
    journal = Journal.open(tmp_path / "lm-1")
    times = [journal.append(event) for event in events]
    journal.close()
    back = read_journal(tmp_path / "lm-1")
    assert back == [replace(e, time_ms=t) for e, t in zip(events, times, strict=True)]


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (0, '"space_text":', '"text":'),  # a key is missing
        (0, '\\"trials\\":', '\\"tries\\":'),  # the space is not valid
        (0, '"vocab_size":', '"words":'),
        (2, '\\"learning_rate\\":', '\\"rate\\":'),
        (3, '"val_loss":', '"loss":'),  # a report lacks a value
        (3, '"training"', '"sleeping"'),
        (4, "stopped at report 3", "halted at report 3"),
        (4, '"event":"outcome"', '"event":"verdict"'),  # an unknown event
    ],
)
def test_events_of_another_version_are_refused_in_one_sentence(
    tmp_path: Path, line: int, old: str, new: str
) -> None:
    body = LINES[line][:-_CRC] + "}"
    assert old in body
    changed = text_of(json.loads(body.replace(old, new))).decode().rstrip("\n")
    folder = write(tmp_path / "lm-1", LINES[1], changed)
    for read in (read_journal, Journal.open):
        with pytest.raises(JournalError, match="journal of lm-1 is of another version") as error:
            read(folder)
        assert str(error.value).endswith("journal.jsonl:2)")
        assert "\n" not in str(error.value)
