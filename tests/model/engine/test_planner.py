"""Plans made ahead equal plans made in time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.corpus.dataset import TextDataset
from model.engine import planner as planning
from model.engine.planner import Planner, plan_of
from model.engine.slot import Slot, TrialRequest
from model.spec.trial import TrialSpec
from model.stack.plan import QuantumPlan
from tests.conftest import MakeSpec

Tokens = tuple[np.ndarray, np.ndarray]


def slot_of(spec: TrialSpec) -> Slot:
    return Slot(TrialRequest("0", spec), spec)


def turn(slots: list[Slot | None], plan: QuantumPlan) -> None:
    """Account for a plan as the engine does."""
    for row, slot in enumerate(slots):
        if slot is not None:
            zeros = [0.0] * len(plan)
            assert slot.account(
                plan.due[:, row].tolist(), plan.weight[:, row].tolist(), zeros, zeros, zeros
            )


def assert_same(a: QuantumPlan, b: QuantumPlan) -> None:
    for field in dataclasses.fields(QuantumPlan):
        one, other = getattr(a, field.name), getattr(b, field.name)
        for x, y in zip(
            *((v if isinstance(v, tuple) else (v,)) for v in (one, other)), strict=True
        ):
            np.testing.assert_array_equal(x, y, err_msg=field.name)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record of the plans that were made."""
    calls: list[int] = []

    def plan(*arguments: object, **options: object) -> QuantumPlan:
        calls.append(1)
        return plan_of(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(planning, "plan_of", plan)
    return calls


def test_plan_made_ahead_is_the_one_made_in_time(
    tokens: Tokens, make_spec: MakeSpec, planned: list[int]
) -> None:
    """Also for slots in the middle of an update, empty ones, and noise."""
    make = make_spec
    specs = [make(steps=90, reports=1, batch_size=b, dropout=0.1) for b in (2, 4, 6)]
    specs.append(make(steps=90, reports=1, token_noise=0.2))
    slots = [*map(slot_of, specs), None]
    a, b, text = specs[0].architecture, specs[0].micro_batch, TextDataset(tokens[0])
    planner = Planner(a, b, text, is_data_on_device=False)
    for number in range(8):
        before = len(planned)
        plan = planner.next(slots)
        assert (len(planned) == before) == (number > 0)
        assert_same(plan, plan_of(slots, a, b, text))
        planner.look_ahead(slots, plan)
        turn(slots, plan)


def test_plan_made_ahead_is_dropped_when_a_slot_changes_hands(
    tokens: Tokens, make_spec: MakeSpec
) -> None:
    spec = make_spec(steps=90, reports=1)
    a, b, text = spec.architecture, spec.micro_batch, TextDataset(tokens[0])
    for change in (None, slot_of(make_spec(steps=90, reports=1, seed=1))):
        slots = [slot_of(spec), slot_of(spec)]
        planner = Planner(a, b, text, is_data_on_device=False)
        plan = planner.next(slots)
        planner.look_ahead(slots, plan)
        turn(slots, plan)
        slots[1] = change
        assert_same(planner.next(slots), plan_of(slots, a, b, text))


def test_nothing_is_planned_beyond_a_report(
    tokens: Tokens, make_spec: MakeSpec, planned: list[int]
) -> None:
    spec = make_spec(steps=2, reports=2)
    slots = [slot_of(spec)]
    planner = Planner(
        spec.architecture, spec.micro_batch, TextDataset(tokens[0]), is_data_on_device=False
    )
    planner.look_ahead(slots, planner.next(slots))
    assert len(planned) == 1
