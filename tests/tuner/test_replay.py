from __future__ import annotations

import dataclasses
import math
import sys

from model.report import METRICS, Report, Status
from tuner.replay import Verdict, compare, judge


def report(step: int, loss: float = 3.0, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, step * 32, loss, 3.5, 1.0, 0.01)


def recorded(*reports: Report) -> dict[int, dict[str, float]]:
    return {r.step: r.metrics() for r in reports}


def test_compare_finds_nothing_in_equal_reports() -> None:
    reports = [report(1), report(2, 2.5), report(3, math.nan, Status.DIVERGED)]
    assert compare(recorded(*reports), reports) == []


def test_compare_sees_the_last_bit() -> None:
    record = recorded(report(1), report(2))
    record[2]["grad_norm"] = math.nextafter(1.0, 2.0)
    (difference,) = compare(record, [report(1), report(2)])
    assert (difference.step, difference.metric) == (2, "grad_norm")
    assert 0 < difference.of_allowed < 1e-13


def test_compare_knows_how_infinity_is_stored() -> None:
    """MLflow's databases keep it as the largest double."""
    record = recorded(report(1))
    record[1]["train_loss"] = sys.float_info.max
    replayed = dataclasses.replace(report(1), train_loss=math.inf)
    assert compare(record, [replayed]) == []


def test_compare_orders_by_step_and_misses_no_report() -> None:
    found = compare(recorded(report(1), report(2)), [report(1, 2.9), report(3)])
    assert found[0].metric == "val_loss"
    assert [d.step for d in found] == sorted(d.step for d in found)
    assert {d.step for d in found} == {1, 2, 3}
    missing = [d for d in found if d.step == 2]
    assert {d.metric for d in missing} == {*METRICS}
    assert all(math.isinf(d.of_allowed) for d in missing)


def test_judge_excuses_a_token_or_two_of_what_is_written() -> None:
    """A score may be near zero, where any difference is a large share of it."""
    old = dataclasses.replace(report(1), token_accuracy=0.001, bleu=0.1)
    near = dataclasses.replace(old, token_accuracy=0.015, bleu=1.9)
    far = dataclasses.replace(old, bleu=2.2)
    assert judge(compare(recorded(old), [near]), is_elsewhere=True) is Verdict.WITHIN_TOLERANCE
    assert judge(compare(recorded(old), [far]), is_elsewhere=True) is Verdict.DIFFERENT


def test_judge_excuses_small_differences_elsewhere_only() -> None:
    near = compare(recorded(report(1, 3.0)), [report(1, 3.001)])
    far = compare(recorded(report(1, 3.0)), [report(1, 3.5)])
    assert judge([], is_elsewhere=True) is Verdict.BIT_EXACT
    assert judge(near, is_elsewhere=False) is Verdict.DIFFERENT
    assert judge(near, is_elsewhere=True) is Verdict.WITHIN_TOLERANCE
    assert judge(far, is_elsewhere=True) is Verdict.DIFFERENT
