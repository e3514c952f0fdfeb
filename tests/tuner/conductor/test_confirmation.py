from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuner.conductor.confirmation import Confirmed, compare_retrained, interval, summary

SEEDS = st.lists(st.floats(-50, 50), min_size=2, max_size=6)


@given(SEEDS)
def test_interval_is_students(values: list[float]) -> None:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))
    found = interval(values)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.low == pytest.approx(mean - half, abs=1e-9)
    assert found.high == pytest.approx(mean + half, abs=1e-9)


def test_interval_of_three_values_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])  # t = 4.302653 with 2 degrees of freedom, s = 1
    assert (found.mean, found.half) == (2.0, pytest.approx(4.3026527 / math.sqrt(3), rel=1e-6))


def test_interval_of_one_value_is_unbounded_and_of_none_is_an_error() -> None:
    assert (interval([2.0]).low, interval([2.0]).high) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="needs a value"):
        interval([])


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=6))
def test_difference_is_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = ([float(v) for v in column] for column in zip(*pairs, strict=True))
    result = compare_retrained({1: a, 2: b})
    first, second = (a, b) if result.ranked[0].number == 1 else (b, a)
    differences = [y - x for x, y in zip(first, second, strict=True)]
    assert result.difference is not None
    if max(differences) - min(differences) > 1e-3:
        expected = stats.ttest_rel(second, first).confidence_interval(0.95)
        assert result.difference.low == pytest.approx(float(expected.low), abs=1e-6)
        assert result.difference.high == pytest.approx(float(expected.high), abs=1e-6)
        p = float(stats.ttest_rel(first, second).pvalue)
        if abs(p - 0.05) > 1e-6:
            assert result.can_tell_apart is (p < 0.05)


def test_paired_difference_is_significant_with_overlapping_intervals() -> None:
    """The seeds move both configurations alike; their difference is always near 0.01."""
    result = compare_retrained({7: [3.80, 3.90, 4.00], 2: [3.811, 3.909, 4.010]})
    assert result.ranked[0].high > result.ranked[1].mean
    assert result.can_tell_apart is True
    text = summary(result, "val_loss", {7: 3.7, 2: 3.75})
    assert text[0] == "Confirmed winner: trial 7, val_loss 3.9000 ± 0.2484 (3 seeds); " + (
        "it was selected with 3.7000."
    )
    assert text[1].startswith("It can be told apart from trial 2: 0.0100 lower, 95 % interval 0.00")
    assert text[1].endswith("over the same 3 seeds.")
    assert len(text) == 2


def test_winner_is_the_smallest_or_the_largest_mean() -> None:
    values = {4: [1.0, 1.2], 5: [0.9, 1.0], 6: [1.4, 1.5]}
    assert [c.number for c in compare_retrained(values).ranked] == [5, 4, 6]
    assert [c.number for c in compare_retrained(values, "max").ranked] == [6, 4, 5]
    higher = compare_retrained({1: [1.0, 1.1, 1.2], 2: [2.0, 2.1, 2.21]}, "max")
    assert "higher" in summary(higher, "bleu")[1]


def test_selected_leader_that_loses_is_named() -> None:
    result = compare_retrained({4: [1.0, 1.2], 5: [0.9, 1.0]})
    assert summary(result, "val_loss", {4: 0.8, 5: 0.85})[-1] == (
        "Trial 4 led the search with 0.8000, but not when retrained."
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_diverged_retraining_ranks_last_and_is_reported(bad: float, mode: str) -> None:
    good = 1.0 if mode == "min" else 3.0
    result = compare_retrained({1: [good, bad, good], 2: [2.0, 2.1, 2.2]}, mode)  # type: ignore[arg-type]
    assert [c.number for c in result.ranked] == [2, 1]
    assert (result.ranked[1].diverged, result.ranked[1].mean) == (1, good)
    assert (result.difference, result.can_tell_apart) == (None, None)
    assert summary(result, "x")[-1] == "Trial 1 diverged in 1 of 3 retrainings, so it ranks behind."


def test_equal_values_have_zero_interval_and_no_significance() -> None:
    result = compare_retrained({3: [2.0, 2.0, 2.0], 1: [2.0, 2.0, 2.0]})
    assert result.ranked[0] == Confirmed(1, (2.0, 2.0, 2.0), 2.0, 2.0, 2.0, 0)
    assert result.can_tell_apart is False
    assert result.spread == 0
    assert summary(result, "x")[1].endswith("take whichever is cheaper.")


def test_constant_difference_is_significant() -> None:
    assert compare_retrained({1: [1.0, 2.0], 2: [1.5, 2.5]}).can_tell_apart is True


def test_single_configuration_has_no_comparison() -> None:
    result = compare_retrained({3: [2.0, 2.2]})
    assert (result.difference, result.can_tell_apart) == (None, None)
    assert len(summary(result, "x")) == 1


def test_retrainings_that_did_not_run_are_left_out_of_mean_and_pairs() -> None:
    result = compare_retrained({1: [1.0, None, 1.2], 2: [None, 2.0, None], 3: [1.5, 1.0, 1.6]})
    assert [(c.number, c.count) for c in result.ranked] == [(1, 2), (3, 3), (2, 1)]
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(0.45)  # seeds 0 and 2 only
    assert "(1 seed)" in summary(compare_retrained({2: [None, 2.0]}), "x")[0]


def test_nothing_retrained_has_no_winner() -> None:
    assert compare_retrained({}).winner is None
    assert summary(compare_retrained({}), "x") == []
    for values in ([math.nan, math.inf], [None, None], []):
        result = compare_retrained({1: values})
        assert result.winner is None
        assert summary(result, "x") == ["No winner is confirmed: no retraining has a value."]


def test_proposed_seeds_show_the_difference_in_eighty_percent_of_studies() -> None:
    """Simulated studies with the difference and the deviation of the observed one."""
    result = compare_retrained({1: [1.0, 1.0, 1.0], 2: [1.0, 1.1, 1.2]})
    text = summary(result, "x")[1]
    assert "It cannot be told apart from trial 2: difference 0.1000" in text
    assert text.endswith("would show it with a probability of 80 %.")
    needed = int(text.split("seeds: ")[1].split("}")[0])
    shares = {count: share_shown(count, 0.1, 0.1) for count in (needed - 1, needed)}
    assert shares[needed] == pytest.approx(0.83, abs=0.04)
    assert shares[needed - 1] < 0.8


def share_shown(count: int, mean: float, deviation: float) -> float:
    """Share of 4,000 studies of some seeds whose interval of the difference excludes 0."""
    rng = np.random.default_rng(count)
    studies = rng.normal(mean, deviation, (4000, count))
    half = factor(count) * studies.std(1, ddof=1) / math.sqrt(count)
    return float((abs(studies.mean(1)) > half).mean())


def factor(count: int, finalists: int = 1) -> float:
    """Half the width of an interval, in standard errors."""
    values = list(range(count))
    return interval(values, finalists).half / float(stats.sem(values))


@pytest.mark.parametrize(
    ("finalists", "seeds", "gaps"),
    [(2, 3, 0.0), (3, 3, 0.0), (3, 10, 0.0), (8, 3, 0.0), (8, 10, 0.0), (8, 10, 0.3), (3, 3, 0.5)],
)
def test_interval_of_the_winner_covers_its_true_mean(
    finalists: int, seeds: int, gaps: float
) -> None:
    """The winner has the best of several means, so Student's interval covers less than 95 %."""
    rng = np.random.default_rng(finalists * seeds)
    truth = gaps * np.arange(finalists)
    values = truth[:, None] + rng.normal(size=(20_000, finalists, seeds))
    winner = values.mean(2).argmin(1)
    chosen = values[np.arange(len(values)), winner]
    errors = abs(chosen.mean(1) - truth[winner]) / stats.sem(chosen, axis=1)
    assert (errors <= factor(seeds, finalists)).mean() > 0.95 - 0.004  # 2.6 standard deviations
    if finalists == 8 and seeds == 10 and not gaps:
        assert (errors <= factor(seeds)).mean() < 0.91


def test_intervals_count_the_finalists_that_have_a_mean() -> None:
    two = {1: [1.0, 1.1, 1.2], 2: [2.0, 2.1, 2.3]}
    assert compare_retrained(two).ranked[0].high == interval(two[1]).high
    assert compare_retrained(two | {3: [math.nan] * 3}).ranked[0].high == interval(two[1]).high
    three = compare_retrained(two | {3: [3.0, 3.0, 3.1]})
    assert three.ranked[0].high == interval(two[1], 3).high > interval(two[1]).high


def test_spread_is_pooled_within_configurations() -> None:
    result = compare_retrained({1: [1.0, 2.0, 3.0], 2: [10.0, 12.0], 3: [5.0, math.nan]})
    assert result.spread == pytest.approx(math.sqrt((2 * 1.0 + 1 * 2.0) / 3))
    assert compare_retrained({1: [1.0]}).spread is None
