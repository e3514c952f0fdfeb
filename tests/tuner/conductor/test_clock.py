"""Virtual clocks: what training costs."""

from __future__ import annotations

from tests.conftest import MakeSpec
from tuner.conductor.clock import CLOCKS, SECONDS, TOKENS
from tuner.conductor.job import Lane


def test_clock_of_tokens_counts_tokens(make_spec: MakeSpec) -> None:
    clock = CLOCKS[TOKENS]
    assert (clock.per_job, clock.per_token(make_spec())) == (0, 1)


def test_clock_of_seconds_expects_more_of_larger_models_and_smaller_batches(
    make_spec: MakeSpec,
) -> None:
    clock = CLOCKS[SECONDS]
    spec = make_spec()
    a, h = spec.architecture, spec.hyperparameters
    wide = spec.model_copy(update={"architecture": a.model_copy(update={"d_model": 4 * a.d_model})})
    large = spec.model_copy(
        update={"hyperparameters": h.model_copy(update={"batch_size": 4 * h.batch_size})}
    )
    costs = [clock.per_token(each) for each in (large, spec, wide)]
    assert costs == sorted(set(costs))
    assert all(isinstance(cost, int) for cost in (*costs, clock.per_job))


def test_lane_counts_from_the_beginning_of_its_job() -> None:
    lane = Lane(0, clock=100, tokens_before=8, trains_at=107, per_token=3)
    assert [lane.clock_at(tokens) for tokens in (8, 9, 18)] == [107, 110, 137]
