from __future__ import annotations

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tuner.conductor.board import Board
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.space.objective import Objective
from tuner.terminal.live import LiveView, LogView, draw_board, sparkline
from tuner.texts.formatting import clock


@pytest.fixture
def board(make_spec: MakeSpec) -> Board:
    board = Board([Objective()], num_trials=4, expected_tokens=4000)
    for number in range(4):
        board.add(Trial(number, make_spec(seed=number)))
        board.record_report(
            number, Report(str(number), Status.TRAINING, 4, 128, 3.25, 3.0, 1.0, 0.01)
        )
    board.trials[3].outcome = Outcome.stopped(1)
    return board


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_live_view_fits_any_width(board: Board, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    with console.capture() as capture:
        console.print(Group(*draw_board(board, "lm-1", width)))
    lines = capture.get().splitlines()
    assert len(lines) == 3 + 2 + 1 + 3  # rungs, head of the table, trials: nothing wraps
    assert all(cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= width for line in lines)
    if width >= 80:
        text = "\n".join(lines)
        for expected in ("lm-1", "1/4 trials", "3 training", "tokens/s", "left", "val_loss 3.2500"):
            assert expected in text, expected


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ((0, 4), "waiting for workers: 0 of 4 are up"),
        ((3, 4), "3 training · 3 of 4 workers are up"),
        ((4, 4), "3 training"),
        (None, "3 training"),
    ],
)
def test_live_view_says_how_many_workers_are_up(
    board: Board, workers: tuple[int, int] | None, text: str
) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(draw_board(board, "lm-1", 80, workers=workers)[1])
    line = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.fullmatch(rf"([\d,]+ tokens/s · )?{text}", line.strip())


def test_live_view_fits_a_low_terminal(board: Board) -> None:
    assert len(board.training) == 3
    console = Console(width=80, file=io.StringIO())
    console.print(Group(*draw_board(board, "lm-1", 80, height=10)))
    assert len(console.file.getvalue().splitlines()) < 10  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "cells", "expected"),
    [
        ([], 8, ""),
        ([3.0], 8, "▁"),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 8, "█▇▆▅▄▃▂▁"),
        ([math.inf, 8.0, math.nan, 1.0], 8, "█▁"),
        (list(range(8, 0, -1)), 4, "█▆▃▁"),  # each cell is the last of two values
    ],
)
def test_sparkline(values: list[float], cells: int, expected: str) -> None:
    assert sparkline(values, cells) == expected


def test_live_view_compares_values_of_one_report_only(board: Board) -> None:
    """Trial 2 is far better after less training, which is no better result."""

    def best_line() -> str:
        console = Console(width=120, file=io.StringIO())
        console.print(draw_board(board, "lm-1", 120)[2])
        return console.file.getvalue().strip()  # type: ignore[attr-defined]

    def add(number: int, step: int, loss: float, status: Status = Status.TRAINING) -> None:
        report = Report(str(number), status, step, 32 * step, loss, 3.0, 1.0, 0.01)
        board.record_report(number, report)

    add(2, 8, 3.0)
    assert best_line().startswith("lowest val_loss 3.0000  trial 2 at report 2/3  █▁")
    add(0, 8, 3.1)
    assert "trial 2 at report 2/3  (defaults 3.1000)" in best_line()
    add(1, 8, 3.2)
    add(1, 12, 3.1, Status.FINISHED)
    assert best_line().startswith("best val_loss 3.1000  trial 1  █▆▁")
    add(0, 12, 3.05, Status.FINISHED)
    assert best_line().startswith("best val_loss 3.0500  trial 0  █▃▁")


def test_live_view_prints_only_important_events(board: Board) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    view = LiveView(console)
    view.begin(board, "lm-1")
    view.event(board.trials[3], "stopped at report 1")
    board.record_report(1, Report("1", Status.DIVERGED, 5, 160, math.nan, 3.0, 1.0, 0.01))
    view.event(board.trials[1], "diverged")
    board.record_report(2, Report("2", Status.FINISHED, 12, 384, 3.0, 3.0, 1.0, 0.01))
    view.event(board.trials[2], "best so far  finished")
    view.end()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "trial 1  diverged" in text
    assert "trial 2  best so far  finished" in text
    assert "stopped at report 1" not in text


def test_live_view_starts_and_ends(board: Board) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    view = LiveView(console)
    view.phase("starting")
    view.begin(board, "lm-1")
    view.end()
    assert "starting" in console.file.getvalue()  # type: ignore[attr-defined]


def test_log_view_says_that_no_worker_is_up(board: Board) -> None:
    console = Console(width=40, file=io.StringIO())
    view = LogView(console)
    for up in (4, 0, 3):
        view.workers(up, 4)
    assert console.file.getvalue() == (  # type: ignore[attr-defined]
        "waiting for workers: 0 of 4 are up\n"
    )


def test_log_view_prints_a_line_per_event(board: Board) -> None:
    console = Console(width=40, file=io.StringIO())
    view = LogView(console)
    view.phase("starting")
    view.begin(board, "lm-1")
    view.event(board.trials[1], "report 1/3  val_loss 3.2500  best at this report")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["starting", "lm-1"]
    assert len(lines) == 3  # lines do not wrap
    assert "trial   1  report 1/3  val_loss 3.2500  best at this report  [1/4 trials, " in lines[2]
    assert "left]" in lines[2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3661, "1:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
