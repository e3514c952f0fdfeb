"""What a view hears of a journal, of this process or of another one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.driver.driven_search import TextView
from tests.tuner.simulated_search import FACTS
from tuner.conductor.board import Board
from tuner.conductor.outcome import FINISHED
from tuner.driver.view import ViewProjection
from tuner.journal.events import (
    Event,
    MessageSent,
    NodeLost,
    Reported,
    SearchBegun,
    SearchStalled,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    WorkersChanged,
)
from tuner.journal.fold import Search
from tuner.journal.journal import Journal
from tuner.journal.lines import Entry
from tuner.schedulers.scheduler import Decision
from tuner.space.space import SearchSpace


class FramedView(TextView):
    """A view that also keeps when training begins and ends."""

    def begin(self, board: Board, title: str) -> None:
        self.texts.append(f"begin {title}, {len(board.trials)} trials")

    def end(self) -> None:
        self.texts.append("end")


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, 32 * step, loss, loss, 1.0, 0.01)


@pytest.fixture
def entries(tmp_path: Path, space: SearchSpace, make_spec: MakeSpec) -> Sequence[Entry]:
    spec = make_spec(steps=12, reports=3)
    final = report(12, 1.5, Status.FINISHED)
    events: list[Event] = [
        SearchBegun(space, "", FACTS),
        SessionBegun({}, 2, in_order=True),
        WorkersChanged(1, 2),
        TrialBegun(0, {}, spec),
        TrialBegun(1, {}, spec, same_as=0),
        Reported(0, report(4, 2.0)),
        Reported(0, report(8, 1.75), Decision.PAUSE),
        NodeLost("f00", "b (10.0.0.2)"),
        SearchStalled(901.0, "here"),
        MessageSent("worker 0 has restarted"),
        Reported(0, final, Decision.STOP, FINISHED),
        SessionEnded("interrupted"),
        SessionBegun({}, 2, in_order=True),
        SessionEnded("finished"),
    ]
    with closing(Journal.open(tmp_path / "lm-1")) as journal:
        for event in events:
            journal.append(event)
        return journal.entries


TEXTS = (
    "begin lm-1, 0 trials",
    "1 of 2",
    "1: same as trial 0",
    "0: report 1/3  val_loss 2.0000",
    "0: report 2/3  val_loss 1.7500  waits to be promoted",
    "node b (10.0.0.2) is lost",
    "worker 0 has restarted",
    "0: report 3/3  val_loss 1.5000  best so far  finished",
    "end",
    "begin lm-1, 2 trials",
    "end",
)


def test_view_hears_of_a_search_as_it_happens(entries: Sequence[Entry]) -> None:
    view = FramedView()
    projection, search = ViewProjection(view, "lm-1"), None
    for entry in entries:
        search = Search.after(search, entry.event)
        projection.take(entry, search, is_sent=False)
        projection.send()
    projection.close()
    assert tuple(view.texts) == TEXTS


@pytest.mark.parametrize("known", [2, 6, 12])
def test_view_that_comes_later_hears_what_is_new(entries: Sequence[Entry], known: int) -> None:
    """It sees the board of the search under way, and no old news; nothing begins between two."""
    view = FramedView()
    projection, search = ViewProjection(view, "lm-1"), None
    for number, entry in enumerate(entries):
        search = Search.after(search, entry.event)
        projection.take(entry, search, is_sent=number < known)
        if number + 1 >= known:
            projection.send()
    expected = {
        2: TEXTS,
        6: ("begin lm-1, 2 trials", *TEXTS[4:]),
        12: TEXTS[9:],
    }
    assert tuple(view.texts) == expected[known]
    projection.close()
    assert tuple(view.texts) == expected[known], "it has ended"
