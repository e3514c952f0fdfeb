from __future__ import annotations

import pytest

from tuner.samplers.observation import (
    Feedback,
    Observation,
    at_one_budget,
    extrapolated,
    with_stopped,
)

TOLD = {
    0: Observation("finished", {10: 5.0, 30: 4.0, 90: 3.0}),
    1: Observation("finished", {10: 6.0, 30: 4.5, 90: 3.9}),
    2: Observation("finished", {11: 4.0, 32: 3.5, 91: 3.4}),  # another batch size
    3: Observation("stopped", {10: 7.0}),
    4: Observation("stopped", {11: 5.5, 31: 5.0}),
    5: Observation("diverged", {10: 1.0, 30: 2.0}),
    6: Observation("failed", {10: 1.0}),
    7: Observation("diverged", {}),
}


def test_as_they_are_ranks_stopped_trials_by_their_reports() -> None:
    feedback = with_stopped(TOLD)
    assert feedback[0] == Feedback((3.0,))
    assert feedback[4] == Feedback(None, {11: 5.5, 31: 5.0})
    assert feedback[5] == feedback[7] == Feedback(None, {})
    assert 6 not in feedback


def test_as_if_finished_continues_like_the_median() -> None:
    """From report 1 the others gained 2, 2.1 and 0.6; from report 3 they gained 1, 0.6, 0.1."""
    feedback = extrapolated(TOLD, 10)
    assert feedback[2] == Feedback((3.4,))
    assert feedback[3].values == pytest.approx((7.0 - 2.0,))
    assert feedback[4].values == pytest.approx((5.0 - 0.6,))
    assert feedback[5].values == feedback[7].values == pytest.approx((5.0,))  # the worst of all
    assert 6 not in feedback


def test_as_if_finished_without_a_finished_trial() -> None:
    feedback = extrapolated({n: TOLD[n] for n in (3, 4, 7)}, 10)
    assert [feedback[n].values for n in (3, 4, 7)] == [(7.0,), (5.0,), (7.0,)]
    assert extrapolated({7: TOLD[7]}, 10) == {7: Feedback(None, {})}
    assert extrapolated({}, 10) == {}


@pytest.mark.parametrize(
    ("enough", "values"),
    [
        (3, {0: 3.0, 1: 3.9, 2: 3.4}),  # three have reached the full budget
        (4, {0: 4.0, 1: 4.5, 2: 3.5, 4: 5.0}),
        (6, {0: 5.0, 1: 6.0, 2: 4.0, 3: 7.0, 4: 5.5}),  # too few anywhere: the lowest rung
    ],
)
def test_at_one_budget_uses_largest_budget_with_enough_trials(
    enough: int, values: dict[int, float]
) -> None:
    feedback = at_one_budget(TOLD, [10, 30, 90], 10, enough)
    assert {n: one.values for n, one in feedback.items()} == {
        **{n: (value,) for n, value in values.items()},
        5: None,  # diverged trials are the worst at every budget
        7: None,
    }


def test_trials_that_end_early_count_at_every_later_rung() -> None:
    observations = {
        0: Observation("finished", {10: 5.0, 20: 4.0}),
        1: Observation("finished", {10: 4.0, 90: 2.0}),
    }
    feedback = at_one_budget(observations, [10, 30, 90], 10, 2)
    assert [feedback[n].values for n in (0, 1)] == [(4.0,), (2.0,)]


def test_several_objectives_are_taken_as_they_ended() -> None:
    observations = {
        0: Observation("finished", {9: 3.0}, (3.0, -20.0)),
        1: Observation("finished", {9: 2.0}, (2.0, -5.0)),
    }
    assert with_stopped(observations)[0] == Feedback((3.0, -20.0))
    feedback = extrapolated({**observations, 2: Observation("diverged", {})}, 9)
    assert feedback[2] == Feedback((3.0, -5.0))
    broken = Observation("finished", {9: 3.0}, (3.0, float("nan")))
    assert with_stopped({0: broken})[0] == Feedback(None, {})
