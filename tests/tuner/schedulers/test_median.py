from __future__ import annotations

import random

import numpy as np
import pytest

from tests.tuner.schedulers.simulation import Search, facts, noise
from tuner.schedulers.median import MedianStopping
from tuner.schedulers.scheduler import Decision, SchedulerContext

NOBODY = frozenset[int]()


def plain(reports: int = 8) -> SchedulerContext:
    return facts("median", reports=reports, never_stopped=NOBODY)


@pytest.mark.parametrize("slots", [1, 4, 30])
@pytest.mark.parametrize("failing", [0.0, 0.05])
def test_median_agrees_with_numpy(slots: int, failing: float) -> None:
    """The rule over a table of all reports, in the order in which they came."""
    stops = 0
    for seed in range(8):
        given = facts("median", reports=8, never_stopped=frozenset({0}))
        levels = (10**9, 6)[seed % 2]
        table: dict[int, list[float]] = {}  # number → values, one for each report
        search = Search(
            given, MedianStopping(given), slots, 30, noise(seed, levels), seed, failing=failing
        ).run()
        for call, (args, _), answer in search.calls:
            if call == "end" and args[2] is None:
                table.pop(args[0], None)
            elif call in {"judge", "end"}:
                number, _, value = args
                mine = table.setdefault(number, [])
                mine.append(value)
                count = len(mine)
                others = [
                    np.mean(values[:count])
                    for other, values in table.items()
                    if other != number and len(values) >= count
                ]
                if call == "judge" and number and count > 1 and len(others) >= 3:
                    # values within rounding of the median may go either way: there are none
                    assert abs(min(mine) - np.median(others)) > 1e-12
                    assert (answer is Decision.STOP) == (min(mine) > np.median(others))
                    stops += answer is Decision.STOP
                elif call == "judge":
                    assert answer is Decision.CONTINUE
    assert stops > 20


def feed(tested: MedianStopping, number: int, values: list[float], step: int = 100) -> Decision:
    """A trial reports some values; what becomes of it after the last one."""
    tested.add(number, {})
    decisions = [tested.judge(number, step * (i + 1), v) for i, v in enumerate(values)]
    assert set(decisions[:-1]) <= {Decision.CONTINUE}
    return decisions[-1]


def test_median_waits_for_three_others_and_the_second_report() -> None:
    tested = MedianStopping(plain())
    for number in range(3):
        assert feed(tested, number, [3.0, 2.0, 1.0]) is Decision.CONTINUE  # averages 3, 2.5, 2
    assert feed(tested, 3, [9.0]) is Decision.CONTINUE
    assert tested.judge(3, 200, 2.51) is Decision.STOP
    assert feed(tested, 4, [9.0, 2.5]) is Decision.CONTINUE  # as good as the median
    lonely = MedianStopping(plain())
    for number in range(2):
        feed(lonely, number, [3.0, 2.0])
    assert feed(lonely, 2, [9.0, 9.0]) is Decision.CONTINUE


def test_median_removes_diverged_and_keeps_stopped_trials() -> None:
    tested = MedianStopping(plain())
    for number in range(4):
        feed(tested, number, [1.0, 1.0])
    assert feed(tested, 4, [5.0, 5.0]) is Decision.STOP
    tested.end(4, 200, None)  # of a stopped one: no effect
    for number in range(3):
        tested.end(number, 250, None)
    # the others are one of 1.0 and the stopped one of 5.0: too few
    assert feed(tested, 5, [9.0, 9.0]) is Decision.CONTINUE
    assert feed(tested, 6, [9.0, 9.0]) is Decision.STOP  # 1, 5, 9: the median is 5


def test_median_compares_trials_that_report_a_little_apart() -> None:
    """With other batch sizes a report comes up to one update later."""
    tested = MedianStopping(plain())
    for number, step in enumerate((100, 101, 103)):
        feed(tested, number, [1.0, 1.0], step)
    assert feed(tested, 3, [2.0, 2.0], 102) is Decision.STOP


def test_median_counts_a_trial_where_it_has_passed() -> None:
    """An update that takes more tokens than a report leaves places out."""
    tested = MedianStopping(plain())
    for number in range(3):
        tested.add(number, {})
        tested.judge(number, 100, 1.0)
        tested.judge(number, 400, 0.5)
    assert feed(tested, 3, [2.0, 1.1]) is Decision.STOP  # at 200 the others' average is 1.0
    assert feed(tested, 4, [2.0, 0.9, 0.9]) is Decision.CONTINUE


def test_median_never_stops_the_chosen_but_counts_them() -> None:
    tested = MedianStopping(facts("median", reports=8, never_stopped=frozenset({0, 1})))
    assert feed(tested, 0, [1.0, 1.0]) is Decision.CONTINUE
    feed(tested, 2, [1.0, 1.0])
    feed(tested, 3, [1.0, 1.0])
    assert feed(tested, 1, [9.0, 9.0]) is Decision.CONTINUE
    assert feed(tested, 4, [2.0, 2.0]) is Decision.STOP


def test_median_takes_ten_thousand_trials() -> None:
    tested, rng = MedianStopping(plain()), random.Random(0)
    going = 0
    for number in range(10_000):
        going += feed(tested, number, [rng.random()] * 2) is Decision.CONTINUE
    assert going == pytest.approx(5000, abs=150)
