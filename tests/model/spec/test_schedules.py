"""Learning-rate schedules against torch's and the formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.spec.derive import derive
from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters
from model.spec.schedules import SCHEDULES, ScheduleContext, learning_rate, lr_cosine_schedule

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


@pytest.mark.slow
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


def rows(schedule: str, **values: float | str) -> Hyperparameters:
    given: dict[str, Any] = {
        "schedule": schedule,
        "learning_rate": PEAK,
        "max_learning_rate": PEAK,
        "min_learning_rate": FLOOR,
        "total_steps": 50,
        **values,
    }
    return derive(given, train_sequences=100, context_length=8)


# every schedule ----------------------------------------------------------------------------------

WARMUPS = pytest.mark.parametrize("warmup", [0, 1, 5, 12])
D_MODEL = 64
Scheduler = torch.optim.lr_scheduler.LRScheduler


def torch_after_warmup(
    h: Hyperparameters, after: Callable[[torch.optim.Optimizer], Scheduler]
) -> list[float]:
    """Rates of updates 1 … T_total: torch's LinearLR up to the peak, then another scheduler."""
    rates = []
    if h.warmup_steps:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], PEAK)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-12, 1.0, h.warmup_steps)
        for _ in range(h.warmup_steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            warm.step()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], PEAK)
    scheduler = after(optimizer)
    while len(rates) <= h.total_steps:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates[1:]  # torch counts updates from 0


def all_rates(h: Hyperparameters) -> list[float]:
    facts = ScheduleContext(D_MODEL)
    return [learning_rate(step, h, facts) for step in range(1, h.total_steps + 1)]


def ours(rates: list[float]) -> Any:
    return pytest.approx(rates, rel=1e-9, abs=1e-9)


@WARMUPS
def test_constant_equals_torch(warmup: int) -> None:
    h = rows("constant", warmup_steps=warmup)
    expected = torch_after_warmup(h, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0))
    assert all_rates(h) == ours(expected)


@WARMUPS
def test_cosine_of_a_trial_is_the_public_function(warmup: int) -> None:
    h = rows("cosine", warmup_steps=warmup, cycle_steps=40)
    expected = [lr_cosine_schedule(t, PEAK, FLOOR, warmup, 40) for t in range(1, 51)]
    assert all_rates(h) == expected
    assert expected[39:] == [FLOOR] * 11


@WARMUPS
@pytest.mark.parametrize("cycle", [50, 30])
def test_linear_equals_torch(warmup: int, cycle: int) -> None:
    h = rows("linear", warmup_steps=warmup, cycle_steps=cycle)
    expected = torch_after_warmup(
        h,
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, FLOOR / PEAK, cycle - warmup),
    )
    assert all_rates(h) == ours(expected)
    assert all_rates(h)[cycle - 1] == FLOOR


@WARMUPS
@pytest.mark.parametrize("every", [1, 7, 40])
def test_step_equals_torch(warmup: int, every: int) -> None:
    h = rows("step", warmup_steps=warmup, decay_steps=every, decay_factor=0.6)
    expected = torch_after_warmup(h, lambda o: torch.optim.lr_scheduler.StepLR(o, every, 0.6))
    assert all_rates(h) == ours(expected)


@WARMUPS
@pytest.mark.parametrize("every", [1, 7, 40])
def test_exponential_equals_torch(warmup: int, every: int) -> None:
    h = rows("exponential", warmup_steps=warmup, decay_steps=every, decay_factor=0.6)
    gamma = 0.6 ** (1 / every)
    expected = torch_after_warmup(h, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma))
    assert all_rates(h) == ours(expected)


@WARMUPS
@pytest.mark.parametrize("first", [1, 4, 9, 38])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_cosine_restarts_equal_torch(warmup: int, first: int, multiplier: int) -> None:
    """Except at the end of a cosine, where ours is at the floor and torch's is up again."""
    h = rows(
        "cosine_restarts", warmup_steps=warmup, cycle_steps=warmup + first,
        cycle_multiplier=multiplier,
    )  # fmt: skip
    expected = torch_after_warmup(
        h,
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            o, first, multiplier, eta_min=FLOOR
        ),
    )
    end, length = warmup + first, first
    while end <= h.total_steps:
        assert expected[end - 1] == pytest.approx(PEAK)
        expected[end - 1] = FLOOR
        length *= multiplier
        end += length
    assert all_rates(h) == ours(expected)


def test_cosine_restarts_take_any_multiplier() -> None:
    """T_i = T_0·1.5^i: cosines of 8, 12, 18 … updates."""
    h = rows("cosine_restarts", warmup_steps=2, cycle_steps=10, cycle_multiplier=1.5)
    rates = all_rates(h)
    assert [t for t, rate in enumerate(rates, 1) if rate == FLOOR] == [10, 22, 40]
    middle = FLOOR + (PEAK - FLOOR) / 2
    assert [rates[t - 1] for t in (6, 16, 31)] == ours([middle] * 3)


def test_cosine_restarts_with_one_cycle_are_the_cosine_bit_for_bit() -> None:
    for warmup in (0, 3, 50):
        a, b = (rows(name, warmup_steps=warmup) for name in ("cosine", "cosine_restarts"))
        assert all_rates(a) == all_rates(b)


@WARMUPS
def test_inverse_sqrt_equals_the_formula(warmup: int) -> None:
    h = rows("inverse_sqrt", warmup_steps=warmup)
    w = max(1, warmup)
    expected = [PEAK * min(t / w, math.sqrt(w / t)) for t in range(1, 51)]
    assert all_rates(h) == ours(expected)


@pytest.mark.parametrize("warmup", [1, 5, 12])
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_noam_equals_the_formula(warmup: int, factor: float) -> None:
    """Vaswani et al. 2017, equation 3; and inverse_sqrt with the same peak."""
    h = rows("noam", warmup_steps=warmup, noam_factor=factor)
    expected = [factor * D_MODEL**-0.5 * min(t**-0.5, t * warmup**-1.5) for t in range(1, 51)]
    assert all_rates(h) == ours(expected)
    peak = factor / math.sqrt(D_MODEL * warmup)
    same = rows("inverse_sqrt", warmup_steps=warmup, max_learning_rate=peak, min_learning_rate=0)
    assert all_rates(same) == ours(expected)


def test_noam_requires_the_width() -> None:
    with pytest.raises(ValueError, match="noam needs d_model"):
        learning_rate(1, rows("noam"))


@WARMUPS
@pytest.mark.parametrize("cooldown", [0, 1, 20])
@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_wsd_equals_the_formula(warmup: int, cooldown: int, shape: str) -> None:
    """Hägele et al. 2024, equation 1 and section 3.2, with a floor."""
    h = rows("wsd", warmup_steps=warmup, cooldown_steps=cooldown, cooldown_shape=shape)
    expected = []
    for t in range(1, 51):
        if t < warmup:
            expected.append(PEAK * t / warmup)
        elif t <= 50 - cooldown:
            expected.append(PEAK)
        else:
            x = (t - (50 - cooldown)) / cooldown
            down = 1 - x if shape == "linear" else 1 - math.sqrt(x)
            expected.append(FLOOR + (PEAK - FLOOR) * down)
    assert all_rates(h) == ours(expected)
    assert all_rates(h)[-1] == (pytest.approx(FLOOR) if cooldown else PEAK)


# plateau -----------------------------------------------------------------------------------------


@given(
    losses=st.lists(st.sampled_from([1.0, 0.99995, 0.9998, 0.9, 0.8, 1.2]), max_size=30),
    patience=st.integers(0, 4),
    cooldown=st.integers(0, 4),
)
def test_plateau_equals_torch(losses: list[float], patience: int, cooldown: int) -> None:
    h = rows(
        "plateau", warmup_steps=0, decay_factor=0.5, plateau_patience=patience,
        plateau_cooldown=cooldown,
    )  # fmt: skip
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], PEAK)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, cooldown=cooldown, eps=0
    )
    for count in range(len(losses) + 1):
        rate = learning_rate(7, h, ScheduleContext(val_losses=losses[:count]))
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        if count < len(losses):
            scheduler.step(losses[count])


def test_plateau_composes_with_the_warmup() -> None:
    h = rows("plateau", warmup_steps=4, decay_factor=0.5, plateau_patience=0)
    assert learning_rate(2, h) == PEAK / 2
    assert learning_rate(2, h, ScheduleContext(val_losses=[1.0, 1.0])) == PEAK / 4
    assert learning_rate(9, h, ScheduleContext(val_losses=[1.0, 1.0, 0.5, 0.7])) == PEAK / 4


# all ---------------------------------------------------------------------------------------------


def test_every_schedule_is_in_the_symbol_table() -> None:
    assert set(SCHEDULES) == set(SYMBOL_TABLE["schedule"].choices)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@given(total=st.integers(1, 60), data=st.data(), floor=st.sampled_from([0.0, FLOOR, PEAK]))
def test_schedule_is_finite_not_negative_and_at_most_the_peak(
    schedule: str, total: int, data: st.DataObject, floor: float
) -> None:
    warmup = data.draw(st.integers(0, total))
    cycle = data.draw(st.integers(max(1, warmup), 2 * total))
    h = rows(
        schedule, warmup_steps=warmup, cycle_steps=cycle, total_steps=total,
        min_learning_rate=floor, cooldown_steps=data.draw(st.integers(0, total - warmup)),
        cycle_multiplier=data.draw(st.sampled_from([1, 1.3, 2])),
        noam_factor=PEAK * math.sqrt(D_MODEL * max(1, warmup)),
    )  # fmt: skip
    rates = all_rates(h)
    assert all(math.isfinite(rate) and 0 <= rate <= PEAK * (1 + 1e-12) for rate in rates)
    assert rates[max(warmup, 1) - 1] == pytest.approx(PEAK) or warmup == 0
    assert rates[0] > 0 or floor == 0
    facts = ScheduleContext(D_MODEL)
    backwards = [learning_rate(step, h, facts) for step in range(total, 0, -1)]
    assert backwards == rates[::-1], "a pure function has no memory"
    assert sorted(rates[:warmup]) == rates[:warmup]
