from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from tests.tuner.schedulers.simulation import Search, facts, noise
from tuner.schedulers.asha import AshaPromote, AshaStop
from tuner.schedulers.registry import SCHEDULERS
from tuner.schedulers.scheduler import Decision, New, Resume, Scheduler, SchedulerContext
from tuner.space.rungs import rungs as rungs_below

NOBODY = frozenset[int]()


def plain(reports: int = 27) -> SchedulerContext:
    return facts(reports=reports, never_stopped=NOBODY)


def start(scheduler: Scheduler, count: int) -> None:
    for number in range(count):
        assert scheduler.choose(may_start=True) == New()
        scheduler.add(number, {})


def first_rung(scheduler: Scheduler, values: Sequence[float]) -> list[Decision]:
    """What becomes of trials that all come to the first rung, one after the other."""
    start(scheduler, len(values))
    return [scheduler.judge(number, 100, value) for number, value in enumerate(values)]


def promoted(scheduler: Scheduler) -> list[int]:
    """All trials that are brought back now."""
    numbers = []
    while isinstance(choice := scheduler.choose(may_start=False), Resume):
        numbers.append(choice.number)
    return numbers


def rungs_of(given: SchedulerContext) -> list[int]:
    eta = given.space.search.reduction_factor
    return rungs_below(given.report_tokens, eta, given.budget_tokens)


@pytest.mark.parametrize(
    ("reports", "eta", "rungs"),
    [(9, 3, [1, 3]), (10, 3, [1, 3, 9]), (27, 3, [1, 3, 9]), (8, 2, [1, 2, 4]), (1, 3, [])],
)
def test_rungs_lie_at_powers_of_eta_below_the_budget(
    reports: int, eta: int, rungs: list[int]
) -> None:
    given = facts(reports=reports, reduction_factor=eta)
    assert rungs_of(given) == [100 * rung for rung in rungs]


def test_space_describes_the_form_of_asha() -> None:
    assert isinstance(SCHEDULERS["asha"].make(facts()), AshaPromote)
    assert isinstance(SCHEDULERS["asha"].make(facts(asha="stop")), AshaStop)


# stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_stop_agrees_with_the_quantile_of_numpy(eta: int) -> None:
    """Syne Tune's rule: value ≤ numpy.quantile(all that came, 1/η)."""
    for seed in range(20):
        values = np.random.default_rng(seed).random(40)
        given = facts(reports=27, reduction_factor=eta, never_stopped=NOBODY)
        decisions = first_rung(AshaStop(given), values.tolist())
        for n, decision in enumerate(decisions, start=1):
            # a hair above it, because NumPy interpolates with rounding
            goes_on = values[n - 1] <= np.quantile(values[:n], 1 / eta) + 1e-12
            assert (decision is Decision.CONTINUE) == goes_on


def test_stop_keeps_all_trials_in_improving_order() -> None:
    assert first_rung(AshaStop(plain()), [float(-i) for i in range(27)]) == [Decision.CONTINUE] * 27


def share_of_lockstep(scheduler: type[AshaStop | AshaPromote], slots: int) -> float:
    """The share of trials that pass the first rung if they all come there at once."""
    rng, passed = random.Random(0), 0
    for _ in range(1000):
        tested = scheduler(plain())
        decisions = first_rung(tested, [rng.random() for _ in range(slots)])
        passed += decisions.count(Decision.CONTINUE) + len(promoted(tested))
    return passed / (1000 * slots)


def test_stop_keeps_half_of_eight_that_come_in_lockstep_and_promote_a_third() -> None:
    """As measured of Ray Tune: 49 % of 8, 38 % of 32."""
    assert share_of_lockstep(AshaStop, 8) == pytest.approx(0.485, abs=0.015)
    assert share_of_lockstep(AshaStop, 32) == pytest.approx(0.38, abs=0.015)
    assert share_of_lockstep(AshaPromote, 8) < 1 / 3


def test_stop_lets_ties_go_to_the_earlier_report() -> None:
    given = facts(reports=27, never_stopped=NOBODY)
    decisions = first_rung(AshaStop(given), [1.0] * 6)
    assert decisions == [Decision.CONTINUE] + [Decision.STOP] * 5


def test_stop_never_stops_the_chosen_but_ranks_them() -> None:
    given = facts(reports=27, never_stopped=frozenset({2}))
    decisions = first_rung(AshaStop(given), [1.0, 2.0, 9.0, 3.0])
    # the last is second of three among the others; with the chosen one it is third of four
    assert decisions == [Decision.CONTINUE, Decision.STOP, Decision.CONTINUE, Decision.STOP]
    decisions = first_rung(AshaStop(given), [1.0, 2.0, 9.0, 1.5])
    assert decisions[3] is Decision.CONTINUE  # second of four


# promote -------------------------------------------------------------------------------------


def test_promote_brings_back_the_best_third_and_no_more() -> None:
    """Where all 27 come before a slot is free, the rung is halved as if it were synchronous."""
    tested = AshaPromote(plain())
    assert first_rung(tested, [float(i) for i in range(27)]) == [Decision.PAUSE] * 27
    assert promoted(tested) == list(range(9))


def test_promote_continues_in_slot_and_from_highest_rung_first() -> None:
    tested = AshaPromote(plain())
    park, go_on = Decision.PAUSE, Decision.CONTINUE
    decisions = first_rung(tested, [5, 4, 3, 2, 1, 9, 8, 7, 6])
    assert decisions == [park, park, go_on, go_on, go_on, park, park, park, park]
    assert promoted(tested) == []  # the best three are 4, 3 and 2, and all went on
    assert [tested.judge(number, 300, number) for number in (2, 3, 4)] == [park] * 3
    for number, value in ((9, 4.5), (10, 4.6), (11, 4.7)):  # 1 is fourth of twelve now
        tested.add(number, {})
        assert tested.judge(number, 100, value) is park
    assert tested.choose(may_start=True) == Resume(2)  # from the second rung
    assert tested.choose(may_start=True) == Resume(1)  # from the first
    assert tested.choose(may_start=True) == New()
    assert tested.choose(may_start=False) is None


def brute_force(
    table: list[dict[int, float]],
    gone: list[set[int]],
    eta: int,
    never_stopped: frozenset[int],
    *,
    may_start: bool,
) -> int | None:
    """Algorithm 2 of Li et al. 2018, `get_job`, over a table of results in order of arrival.

    Returns:
        The trial to promote, marked as promoted; once no new trial may start, the leader of a rung
        that has none to promote. None if there is none.
    """
    for results, promoted_before in reversed(list(zip(table, gone, strict=True))):
        ranking = sorted(results, key=lambda number: results[number])  # stable: earlier ones first
        candidates = ranking[: len(results) // eta]
        promotable = [number for number in candidates if number not in promoted_before]
        if promotable:
            promoted_before.add(promotable[0])
            return promotable[0]
    for results, promoted_before in reversed(list(zip(table, gone, strict=True))):
        ranking = sorted(results, key=lambda number: results[number])
        leaders = [number for number in ranking if number not in never_stopped][:1]
        if not may_start and leaders and leaders[0] not in promoted_before:
            promoted_before.add(leaders[0])
            return leaders[0]
    return None


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("eta", [2, 3])
def test_promote_agrees_with_the_published_algorithm(slots: int, eta: int) -> None:
    """With failures, ties, trials that are never stopped, and more trials than slots."""
    promotions = 0
    for seed in range(12):
        given = facts(reports=27, reduction_factor=eta, never_stopped=frozenset({0, 7}))
        levels = rungs_of(given)
        table: list[dict[int, float]] = [{} for _ in levels]
        gone: list[set[int]] = [set() for _ in levels]
        failing, ties = (0.0, 0.1)[seed % 2], (5, 10**9)[seed % 3 == 0]
        done = Search(
            given, AshaPromote(given), slots, 60, noise(seed, ties), seed, failing=failing
        ).run()
        for call, (args, options), answer in done.calls:
            if call == "choose":
                expected = brute_force(table, gone, eta, given.never_stopped, **options)
                assert answer == (New() if expected is None else Resume(expected))
                promotions += expected is not None
            elif call == "end" and args[2] is None:
                for results in table:
                    results.pop(args[0], None)
            elif call == "judge" and args[1] in levels:
                rung = levels.index(args[1])
                table[rung][args[0]] = args[2]
                ranking = sorted(table[rung], key=lambda n: table[rung][n])
                in_place = args[0] in ranking[: len(ranking) // eta]
                in_place |= args[0] in given.never_stopped
                assert answer is (Decision.CONTINUE if in_place else Decision.PAUSE)
                if in_place:
                    gone[rung].add(args[0])
            elif call == "judge":
                assert answer is Decision.CONTINUE
    assert promotions > 50


@pytest.mark.parametrize("form", [AshaStop, AshaPromote])
def test_asha_counts_a_report_on_the_highest_rung_that_it_passes(
    form: type[AshaStop | AshaPromote],
) -> None:
    tested = form(plain())
    first_rung(tested, [3.0, 2.0, 1.0])
    tested.add(3, {})
    tested.judge(3, 350, 9.0)
    assert [len(rung) for rung in tested._ladder.rungs] == [3, 1, 0]


@pytest.mark.parametrize("form", [AshaStop, AshaPromote])
def test_asha_removes_diverged_trials_and_keeps_finished_ones(
    form: type[AshaStop | AshaPromote],
) -> None:
    tested = form(plain())
    decisions = first_rung(tested, [3.0, 2.0, 1.0])
    assert decisions[2] is Decision.CONTINUE
    tested.end(2, 250, None)
    assert [len(rung) for rung in tested._ladder.rungs] == [2, 0, 0]
    tested.add(3, {})
    tested.end(3, 310, 0.5)  # its own budget ends past the second rung
    assert [len(rung) for rung in tested._ladder.rungs] == [2, 1, 0]
    assert tested.choose(may_start=True) == New()  # 2 of 2, but ⌊2/3⌋ = 0
    tested.add(4, {})
    tested.judge(4, 100, 5.0)
    is_promoting = isinstance(tested, AshaPromote)
    assert tested.choose(may_start=False) == (Resume(1) if is_promoting else None)


def test_asha_ignores_the_end_of_a_stopped_trial() -> None:
    tested = AshaStop(plain())
    assert first_rung(tested, [1.0, 2.0]) == [Decision.CONTINUE, Decision.STOP]
    tested.end(1, 100, None)
    assert len(tested._ladder.rungs[0]) == 2


def test_promote_promotes_few_by_mistake() -> None:
    """About √n of n trials, as the paper argues; and ten thousand trials take no time."""
    tested, rng = AshaPromote(plain()), random.Random(0)
    passed = 0
    for number in range(10_000):
        tested.add(number, {})
        passed += tested.judge(number, 100, rng.random()) is Decision.CONTINUE
        passed += len(promoted(tested))
    assert 3333 <= passed < 3333 + 2 * 100


# the leader ----------------------------------------------------------------------------------


def test_promote_brings_the_best_of_few_trials_to_the_end() -> None:
    """Trials 1 to 3 beat the defaults, but ⌊n/3⌋ promotes none of them beyond the second rung."""
    tested = AshaPromote(facts(reports=9))
    start(tested, 4)
    assert [tested.judge(0, tokens, 9.0) for tokens in (100, 300)] == [Decision.CONTINUE] * 2
    decisions = [tested.judge(n, 100, value) for n, value in ((1, 6.7), (2, 6.9), (3, 7.4))]
    assert decisions == [Decision.PAUSE, Decision.PAUSE, Decision.PAUSE]
    assert tested.choose(may_start=False) == Resume(1)
    assert tested.judge(1, 300, 6.5) is Decision.PAUSE
    assert tested.choose(may_start=True) == New()  # a new trial comes before the leader
    assert tested.choose(may_start=False) == Resume(1)
    tested.end(1, 900, 6.2)
    assert tested.choose(may_start=False) is None


def test_promote_replaces_a_leader_that_diverged() -> None:
    tested = AshaPromote(facts(reports=9))
    start(tested, 3)
    assert [tested.judge(n, 100, value) for n, value in ((1, 1.0), (2, 2.0))] == ["pause", "pause"]
    assert promoted(tested) == [1]
    tested.end(1, 250, None)
    assert promoted(tested) == [2]


def test_stop_continues_the_best_drawn_trial_behind_the_defaults() -> None:
    tested = AshaStop(facts(reports=9))
    start(tested, 4)
    decisions = [tested.judge(n, 100, value) for n, value in enumerate((1.0, 3.0, 4.0, 2.0))]
    assert decisions == ["continue", "continue", "stop", "continue"]
