from __future__ import annotations

import math

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.workers.scripted_workers import Clock
from tuner.conductor.board import Board
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.space.objective import Objective


def report(step: int, loss: float, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, loss, 1.0, 0.01)


@pytest.fixture
def board(make_spec: MakeSpec) -> Board:
    board = Board([Objective()], num_trials=3, expected_tokens=1000)
    for number in range(3):
        board.add(Trial(number, make_spec(seed=number)))
    return board


def test_board_best_prefers_finished_trials(board: Board) -> None:
    """A stopped trial may look good early; only the full budget compares fairly."""
    assert board.best is None
    assert board.record_report(0, report(4, 5.0))
    assert board.record_report(1, report(4, 3.0))
    assert not board.record_report(2, report(4, 3.5))
    assert board.best is board.trials[1]
    assert board.record_report(2, report(12, 3.2, Status.FINISHED))
    assert board.best is board.trials[2]


def test_board_never_prefers_a_diverged_trial(board: Board) -> None:
    board.record_report(0, report(4, 5.0))
    board.record_report(1, report(4, 1.0))
    board.record_report(1, report(5, math.nan, Status.DIVERGED))
    assert board.best is board.trials[0]
    assert board.trials[1].objective("val_loss") == math.inf
    assert board.trials[1].objective("train_loss") == math.inf


def test_board_distinguishes_paused_from_training_trials(board: Board) -> None:
    board.trials[1].is_paused = True
    board.trials[2].outcome = Outcome.stopped(1)
    assert [row.number for row in board.training] == [0]
    assert [row.number for row in board.paused] == [1]
    assert [row.number for row in board.ended] == [2]


def test_board_ranks_neither_confirmations_nor_before_the_confirmed_winner(
    board: Board, make_spec: MakeSpec
) -> None:
    for number, loss in enumerate((3.0, 3.1, 3.2)):
        board.record_report(number, report(12, loss, Status.FINISHED))
    board.add(Trial(3, make_spec(seed=9), confirms=1))
    assert not board.record_report(3, report(12, 1.0, Status.FINISHED))
    assert board.best is board.trials[0]
    assert board.searched == [board.trials[n] for n in range(3)]
    board.winner = 1
    assert board.best is board.trials[1]


def test_board_counts_trained_tokens(board: Board) -> None:
    board.trials[1].reused = [report(4, 3.0)]
    board.record_report(0, report(4, 3.0))
    board.record_report(1, report(4, 3.0))
    assert board.tokens == 128


def test_board_counts_tokens_and_time(board: Board) -> None:
    assert board.seconds_left is None
    board.record_report(0, report(4, 3.0))
    board.record_report(1, report(4, 3.0))
    assert board.tokens == 2 * 128
    assert board.tokens_per_second > 0
    left = board.seconds_left
    assert left is not None
    assert left > 0


def test_rate_is_that_of_the_last_seconds(board: Board) -> None:
    """Reports may come together, or seldom; those of earlier sessions do not count."""
    clock = Clock()
    board.clock = clock
    board.begin_session()
    board.record_report(0, report(4, 3.0))
    board.begin_session()
    assert board.tokens_per_second == 0
    clock.now += 4
    board.record_report(0, report(8, 3.0))
    board.record_report(1, report(4, 3.0))
    assert board.tokens_per_second == 2 * 128 / 4
    clock.now += 60
    board.record_report(1, report(8, 3.0))
    assert board.tokens_per_second == 128 / 60
    clock.now += 1
    board.record_report(1, report(12, 3.0, Status.FINISHED))
    assert board.tokens_per_second == 2 * 128 / 61


def test_board_estimates_a_search_of_one_trial(make_spec: MakeSpec) -> None:
    """Before any trial has ended there is no average to go by."""
    board = Board([Objective()], num_trials=1, expected_tokens=1000)
    board.add(Trial(0, make_spec()))
    board.record_report(0, report(4, 3.0))
    board.record_report(0, report(8, 3.0))
    assert board.seconds_left is not None


def test_board_leader_is_the_best_at_its_own_report(board: Board) -> None:
    """No trial leads alone at a report, unless it is the first that finished."""
    board.record_report(0, report(4, 5.0))
    assert not board.leads(board.trials[0])
    board.record_report(1, report(4, 4.0))
    assert board.leads(board.trials[1])
    board.record_report(0, report(8, 4.5))
    assert not board.leads(board.trials[0])
    board.record_report(1, report(8, 4.6))
    board.record_report(2, report(4, 4.0))
    assert not board.leads(board.trials[2])  # of equal values the earlier one leads
    board.record_report(0, report(12, 4.4, Status.FINISHED))
    assert board.leads(board.trials[0])
    board.record_report(1, report(12, 4.3, Status.FINISHED))
    assert board.leads(board.trials[1])
    assert not board.leads(board.trials[0])


def test_board_counts_retrainings_in_the_time_left(make_spec: MakeSpec) -> None:
    def left(confirm: tuple[int, int]) -> float:
        board = Board([Objective()], num_trials=1, expected_tokens=1000, confirm=confirm)
        board.add(Trial(0, make_spec()))
        board.record_report(0, report(4, 3.0))
        board.started -= 10
        board._recent[0] = (board._recent[0][0] - 10, 0)
        board.record_report(0, report(8, 3.0))
        assert board.seconds_left is not None
        return board.seconds_left * board.tokens_per_second

    budget = make_spec().budget_tokens
    assert left((0, 0)) == pytest.approx(budget - 8 * 32, rel=0.05)
    assert left((3, 2)) == pytest.approx(budget - 8 * 32 + 2 * budget, rel=0.05)
