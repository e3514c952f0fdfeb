from __future__ import annotations

from collections import Counter

import pytest

from tests.tuner.schedulers.simulation import Draw, Search, facts, noise
from tuner.schedulers.hyperband import BracketPlan, Hyperband, plans
from tuner.schedulers.scheduler import Decision, New, Resume, SchedulerContext

NOBODY = frozenset[int]()


def plain(reports: int, **more: int) -> SchedulerContext:
    return facts("hyperband", reports=reports, never_stopped=NOBODY, **more)


# Table 1 of Li et al. 2016 (JMLR version): R = 81, η = 3; trials and reports at each rung.
PAPER = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]


def test_brackets_start_as_in_the_paper() -> None:
    assert [(plan.size, (*plan.rungs, 7 * 81)[0] // 7) for plan in plans(3, 7, 7 * 81)] == [
        bracket[0] for bracket in PAPER
    ]


@pytest.mark.parametrize("slots", [1, 8, 100])
def test_brackets_halve_as_in_the_paper(slots: int) -> None:
    """However many slots there are, so many trials come to each rung."""
    given, firsts, trials = plain(81), [], 0
    for bracket in PAPER:
        firsts.append(trials)
        trials += bracket[0][0]
    done = Search(given, Hyperband(given), slots, trials, noise(0), lockstep=slots == 100).run()
    for first, bracket in zip(firsts, PAPER, strict=True):
        members = [done.board[first + i] for i in range(bracket[0][0])]
        stops = [reports for _, reports in bracket]
        at_least = [sum(m.tokens >= 100 * reports for m in members) for reports in stops]
        assert list(zip(at_least, stops, strict=True)) == bracket
        assert Counter(m.state for m in members)["finished"] == bracket[-1][0]


@pytest.mark.parametrize(
    ("reports", "eta", "expected"),
    [
        (9, 3, [(9, (1, 3)), (5, (3,)), (3, ())]),
        (10, 3, [(9, (1, 3)), (5, (3,)), (3, ())]),  # not a power: the last step is 3 to 10
        (8, 2, [(8, (1, 2, 4)), (6, (2, 4)), (4, (4,)), (4, ())]),
        (2, 3, [(1, ())]),
        (1, 3, [(1, ())]),
    ],
)
def test_brackets_of_other_budgets(
    reports: int, eta: int, expected: list[tuple[int, tuple[int, ...]]]
) -> None:
    brackets = [BracketPlan(n, tuple(100 * r for r in rungs)) for n, rungs in expected]
    assert plans(eta, 100, 100 * reports) == brackets


def test_brackets_bear_reports_that_do_not_divide_the_budget() -> None:
    """240,000 tokens in nine reports of 26,667: the ninth comes 3 tokens early."""
    assert plans(3, 26_667, 240_000)[0] == BracketPlan(9, (26_667, 80_001))


def started(scheduler: Hyperband, numbers: range) -> None:
    for number in numbers:
        assert scheduler.choose(may_start=True) == New()
        scheduler.add(number, {})


def test_hyperband_judges_when_the_last_has_come() -> None:
    tested = Hyperband(plain(9))
    started(tested, range(9))
    for number in range(8):
        assert tested.judge(number, 100, float(number)) is Decision.PAUSE
        assert tested.choose(may_start=False) is None
    assert tested.judge(8, 100, 0.5) is Decision.CONTINUE
    assert [tested.choose(may_start=True) for _ in range(3)] == [Resume(0), Resume(1), New()]
    assert tested.judge(0, 300, 3.0) is Decision.PAUSE
    assert tested.judge(8, 300, 1.0) is Decision.PAUSE
    assert tested.judge(1, 300, 2.0) is Decision.STOP
    assert tested.choose(may_start=True) == Resume(8)


def test_hyperband_counts_the_diverged_as_the_worst() -> None:
    tested = Hyperband(plain(9))
    started(tested, range(9))
    for number in range(7):
        tested.end(number, 50, None)
    assert tested.judge(7, 100, 1.0) is Decision.PAUSE
    assert tested.judge(8, 100, 1.0) is Decision.CONTINUE  # the best three of nine are these two
    assert tested.choose(may_start=False) == Resume(7)
    tested.end(8, 250, None)
    assert tested.judge(7, 300, 9.0) is Decision.CONTINUE


def test_hyperband_lets_ties_go_to_the_earlier_report() -> None:
    tested = Hyperband(plain(9))
    started(tested, range(9))
    decisions = [tested.judge(number, 100, 1.0) for number in range(8, -1, -1)]
    assert decisions == [Decision.PAUSE] * 8 + [Decision.STOP]
    assert [tested.choose(may_start=False) for _ in range(4)] == [*map(Resume, (8, 7, 6)), None]


def test_hyperband_halves_a_bracket_that_is_not_full_when_trials_have_run_out() -> None:
    tested = Hyperband(plain(9))
    started(tested, range(5))
    for number in range(5):
        assert tested.judge(number, 100, float(number)) is Decision.PAUSE
    assert tested.choose(may_start=False) == Resume(0)
    assert tested.choose(may_start=False) is None
    tested.choose(may_start=True)
    tested.add(5, {})  # in the next bracket, which begins a rung higher
    assert tested.judge(5, 100, 0.0) is Decision.CONTINUE
    assert tested.judge(0, 300, 0.0) is Decision.CONTINUE  # alone at its rung
    assert tested.judge(5, 300, 0.0) is Decision.PAUSE


def test_hyperband_fills_a_bracket_that_has_not_been_halved() -> None:
    """Trials had run out, but all that wait are still awaited; then more come."""
    tested = Hyperband(plain(9))
    started(tested, range(2))
    tested.judge(0, 100, 1.0)
    assert tested.choose(may_start=False) is None
    started(tested, range(2, 9))
    assert tested.judge(8, 100, 0.0) is Decision.PAUSE


def test_hyperband_never_stops_the_chosen() -> None:
    given = facts("hyperband", reports=9, never_stopped=frozenset({0}))
    tested = Hyperband(given)
    started(tested, range(9))
    assert tested.judge(0, 100, 99.0) is Decision.CONTINUE
    assert tested.judge(0, 300, 0.0) is Decision.CONTINUE  # ahead of the others
    for number in range(1, 8):
        tested.judge(number, 100, float(number))
    assert tested.judge(8, 100, 0.5) is Decision.CONTINUE
    assert [tested.choose(may_start=False) for _ in range(3)] == [Resume(1), Resume(2), None]
    # one place at the second rung, and the chosen one has it; the leader continues
    assert [tested.judge(n, 300, 1.0) for n in (8, 1, 2)] == [
        Decision.PAUSE,
        Decision.PAUSE,
        Decision.STOP,
    ]
    assert tested.choose(may_start=False) == Resume(8)


def test_hyperband_counts_a_report_on_all_rungs_that_it_passes() -> None:
    tested = Hyperband(plain(9))
    started(tested, range(9))
    for number in range(8):
        assert tested.judge(number, 400, float(number)) is Decision.PAUSE
    # the first rung, and at once the second, where nobody has to train any more
    assert tested.judge(8, 400, 8.0) is Decision.STOP
    assert [tested.choose(may_start=False) for _ in range(2)] == [Resume(0), None]


def test_hyperband_finds_the_best_trial() -> None:
    """Without noise the best of each bracket trains to the end."""

    def worth(number: int, draw: Draw, tokens: int) -> float:
        return (number * 7919) % 143 + 1000 / tokens

    given = plain(81)
    done = Search(given, Hyperband(given), 8, 143, worth).run()
    assert done.board[0].state == "finished"
    assert done.tokens < 0.2 * 143 * given.budget_tokens
