from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from model.report import Report, Status
from tests.conftest import MakeSpec
from tuner.board import Board, TrialRow
from tuner.live import LiveView, LogView, clock, draw_board
from tuner.space import Objective


@pytest.fixture
def board(make_spec: MakeSpec) -> Board:
    board = Board([Objective()], trials=4, expected_tokens=4000)
    for number in range(4):
        board.add(TrialRow(number, make_spec(seed=number)))
        board.report(number, Report(str(number), Status.TRAINING, 4, 128, 3.25, 3.0, 1.0, 0.01))
    board.rows[3].outcome = "stopped at report 1"
    return board


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_live_view_fits_any_width(board: Board, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    with console.capture() as capture:
        console.print(Group(*draw_board(board, "lm-1", width)))
    lines = capture.get().splitlines()
    assert len(lines) >= 5
    assert not any("━" in line and "val_loss" in line for line in lines)
    if width >= 80:
        text = "\n".join(lines)
        for expected in ("lm-1", "1/4 trials", "3 training", "tokens/s", "left", "val_loss 3.2500"):
            assert expected in text, expected


def test_live_view_starts_and_ends(board: Board) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    view = LiveView(console)
    view.phase("starting")
    view.begin(board, "lm-1")
    view.end()
    assert "starting" in console.file.getvalue()  # type: ignore[attr-defined]


def test_log_view_prints_a_line_per_event(board: Board) -> None:
    console = Console(width=40, file=io.StringIO())
    view = LogView(console)
    view.phase("starting")
    view.begin(board, "lm-1")
    view.event(board.rows[1], "report 1/3  val_loss 3.2500  best so far")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["starting", "lm-1"]
    assert len(lines) == 3  # however narrow
    assert "trial   1  report 1/3  val_loss 3.2500  best so far  [1/4 trials, " in lines[2]
    assert "left]" in lines[2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3661, "1:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
