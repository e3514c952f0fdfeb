"""Learning-rate schedules against torch's and the formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.hyperparameters import SYMBOL_TABLE, Hyperparameters, derive
from model.schedules import SCHEDULES, learning_rate, lr_cosine_schedule

PEAK, FLOOR = 0.3, 0.02


def torch_rates(warmup: int, cycle: int, steps: int) -> list[float]:
    """LinearLR from (almost) 0, then CosineAnnealingLR, then its floor."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], PEAK)
    phases: list[torch.optim.lr_scheduler.LRScheduler] = []
    if warmup:
        phases.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1e-12, 1.0, warmup))
    phases.append(
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cycle - warmup, eta_min=FLOOR)
    )
    rates = []
    for phase, length in zip(phases, ([warmup] if warmup else []) + [cycle - warmup], strict=True):
        phase.base_lrs = [PEAK]
        for _ in range(length):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            phase.step()
        optimizer.param_groups[0]["lr"] = FLOOR if phase is phases[-1] else PEAK
    return rates + [FLOOR] * (steps - len(rates))


@pytest.mark.parametrize(("warmup", "cycle"), [(0, 20), (5, 20), (1, 40), (19, 20)])
def test_cosine_equals_torch(warmup: int, cycle: int) -> None:
    expected = torch_rates(warmup, cycle, 50)
    actual = [lr_cosine_schedule(it, PEAK, FLOOR, warmup, cycle) for it in range(50)]
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("it", "warmup", "cycle", "expected"),
    [
        (0, 10, 30, 0.0),
        (1, 10, 30, PEAK / 10),
        (9, 10, 30, PEAK * 0.9),
        (10, 10, 30, PEAK),
        (15, 10, 30, FLOOR + (PEAK - FLOOR) * (2 + math.sqrt(2)) / 4),
        (20, 10, 30, (PEAK + FLOOR) / 2),
        (30, 10, 30, FLOOR),
        (31, 10, 30, FLOOR),
        (10**9, 10, 30, FLOOR),
        (0, 0, 30, PEAK),
        (30, 0, 30, FLOOR),
        (10, 10, 10, PEAK),  # all warm-up: the peak is reached, and then the floor
        (11, 10, 10, FLOOR),
        (0, 0, 0, PEAK),
        (1, 0, 0, FLOOR),
    ],
)
def test_cosine_at_its_borders(it: int, warmup: int, cycle: int, expected: float) -> None:
    assert lr_cosine_schedule(it, PEAK, FLOOR, warmup, cycle) == pytest.approx(expected, rel=1e-12)


def rows(schedule: str, warmup: int, cycle: int, total: int, floor: float) -> Hyperparameters:
    return derive(
        {
            "schedule": schedule,
            "learning_rate": PEAK,
            "max_learning_rate": PEAK,
            "min_learning_rate": floor,
            "warmup_steps": warmup,
            "cycle_steps": cycle,
            "total_steps": total,
        },
        train_sequences=100,
        context_length=8,
    )


def test_every_schedule_is_in_the_symbol_table() -> None:
    assert set(SCHEDULES) == set(SYMBOL_TABLE["schedule"].choices)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(deadline=None)
@given(total=st.integers(1, 60), data=st.data(), floor=st.sampled_from([0.0, FLOOR, PEAK]))
def test_schedule_is_finite_not_negative_and_at_most_the_peak(
    schedule: str, total: int, data: st.DataObject, floor: float
) -> None:
    warmup = data.draw(st.integers(0, total))
    cycle = data.draw(st.integers(max(1, warmup), 2 * total))
    h = rows(schedule, warmup, cycle, total, floor)
    rates = [learning_rate(step, h) for step in range(1, total + 1)]
    assert all(math.isfinite(rate) and 0 <= rate <= PEAK for rate in rates)
    assert rates[max(warmup, 1) - 1] == pytest.approx(PEAK) or warmup == 0
    assert rates[0] > 0 or floor == 0
    backwards = [learning_rate(step, h) for step in range(total, 0, -1)]
    assert backwards == rates[::-1], "a pure function has no memory"
    assert sorted(rates[:warmup]) == rates[:warmup]


def test_learning_rate_of_a_constant_is_flat_after_the_warmup() -> None:
    h = rows("constant", 4, 8, 12, FLOOR)
    rates = [learning_rate(step, h) for step in range(1, 13)]
    assert rates == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4] + [PEAK] * 9)
    assert learning_rate(1, rows("constant", 0, 8, 12, FLOOR)) == PEAK


def test_learning_rate_of_a_cosine_ends_at_the_floor() -> None:
    h = rows("cosine", 4, 12, 15, FLOOR)
    expected = [lr_cosine_schedule(step, PEAK, FLOOR, 4, 12) for step in range(1, 16)]
    assert [learning_rate(step, h) for step in range(1, 16)] == expected
    assert expected[3] == PEAK
    assert expected[11:] == [FLOOR] * 4
