"""The law: a trial is a pure function of its specification, bit for bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints import checkpoint
from model.corpus.pairs import PairDataset
from model.engine.engine import Engine
from model.engine.report import METRICS, Report, Status
from model.optimizers.registry import OPTIMIZERS
from model.spec.schedules import SCHEDULES
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec, last_state
from tests.model.architectures import SINGLE, mixes
from tests.pairwise import pairwise

Tokens = tuple[np.ndarray, np.ndarray]
Outcome = tuple[list[tuple[Any, ...]], dict[str, torch.Tensor] | None]

# The default shape with a second layer, and small odd ones with unaligned rows and remainders of
# vectors.
SHAPES = (
    {"n_layers": 2},
    {"d_model": 12, "n_layers": 1, "n_heads": 2, "context_length": 7, "d_ff": 32},
    {"d_model": 20, "n_layers": 3, "n_heads": 1, "context_length": 11, "d_ff": 96},
)


def numbers(report: Report) -> tuple[Any, ...]:
    """Return all values of a report, with NaN as None."""
    values = [None if v != v else v for v in report.metrics().values()]  # noqa: PLR0124 - NaN
    return (report.status, report.step, *values)


def train(
    tokens: Tokens | tuple[PairDataset, PairDataset],
    folder: Path,
    specs: list[TrialSpec],
    *,
    slots: int,
    width: int,
    resume: dict[int, Path] | None = None,
    stop: dict[int, int] | None = None,
    late: int = 0,
    starts: Path | None = None,
    **options: Any,
) -> list[Outcome]:
    """Train trials together; return the reports and the final state of each.

    `stop` is the number of reports after which a trial is stopped, and `late` the number of steps
    until the order arrives: the trial is then in the middle of an update. `options` are the
    engine's.
    """
    engine = Engine(
        *tokens,
        slots=slots,
        width=width,
        checkpoint_dir=folder,
        starts=starts,
        decode=str,
        **options,
    )
    for number, spec in enumerate(specs):
        engine.add_trial(str(number), spec, (resume or {}).get(number))
    reports: list[list[tuple[Any, ...]]] = [[] for _ in specs]
    states: list[dict[str, torch.Tensor] | None] = [None for _ in specs]
    orders: dict[int, int] = {}  # trial → steps until it is stopped
    while engine.num_pending:
        for report in engine.step():
            number = int(report.trial_id)
            if number in orders:
                continue
            reports[number].append(numbers(report))
            if report.checkpoint:
                states[number] = checkpoint.read(Path(report.checkpoint))[0]
            if len(reports[number]) == (stop or {}).get(number):
                orders[number] = late
        for number, turns in orders.items():
            if turns == 0:
                engine.stop(str(number))
            orders[number] = turns - 1
    return list(zip(reports, states, strict=True))


def assert_same(a: Outcome, b: Outcome) -> None:
    assert a[0] == b[0]
    assert (a[1] or {}).keys() == (b[1] or {}).keys()
    for name in a[1] or {}:
        assert torch.equal(a[1][name], b[1][name]), name  # type: ignore[index]


# Values of the hyperparameters of a trial; some of them diverge.
VALUES: dict[str, list[Any]] = {
    "seed": [0, 1, 2, 3],
    "batch_size": [2, 4, 6],
    "steps": [3, 4, 5, 6, 8],
    "reports": [1, 2, 3],
    "optimizer": [*OPTIMIZERS],
    "schedule": [*SCHEDULES],
    "plateau_patience": [0],
    "decay_factor": [0.5],
    "max_learning_rate": [1e-3, 0.03, 90.0],
    "learning_rate": [1e-3, 0.03],
    "weight_decay": [0.0, 0.1, 9.0],
    "embedding_decay": [0.0, 0.2],
    "gain_decay": [0.0, 0.2],
    "l1_penalty": [0.0, 1e-3],
    "momentum": [0.0, 0.9],
    "dampening": [0.0, 0.9],
    "dropout": [0.0, 0.25],
    "embedding_dropout": [0.0, 0.1],
    "attention_dropout": [0.0, 0.4],
    "residual_dropout": [0.0, 0.1],
    "token_noise": [0.0, 0.3],
    "label_smoothing": [0.0, 0.1],
    "z_loss": [0.0, 0.01],
    "ema_decay": [0.0, 0.5],
    "target_sparsity": [0.0, 0.5],
    "prune_interval_steps": [1, 2, 3],
    "grad_clip_value": [0.0, 0.05],
    "grad_clip": [0.0, 0.3, 1.0],
}
# One row also says which shape it has, after how many reports it is stopped, and when that arrives.
ROWS = pairwise({**VALUES, "shape": range(len(SHAPES)), "stop": [None, 1, 2]})


def trials() -> st.SearchStrategy[dict[str, Any]]:
    """Hyperparameters of a random trial."""
    return st.fixed_dictionaries({name: st.sampled_from(v) for name, v in VALUES.items()})


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "width", "late"), [(0, 3, 0), (1, 8, 1), (2, 5, 2), (1, 2, 0)])
def test_trial_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, shape: int, width: int, late: int
) -> None:
    """Alone, or in any slot of a stack, before and after refills: the same bits."""
    rows = [row for row in ROWS if row["shape"] == shape]
    stop = {number: row["stop"] for number, row in enumerate(rows) if row["stop"]}
    specs = [make_spec(model=SHAPES[shape], **{name: row[name] for name in VALUES}) for row in rows]
    together = train(tokens, tmp_path, specs, slots=width, width=width, stop=stop, late=late)
    ends = {outcome[0][-1][0] for outcome in together}
    assert Status.FINISHED in ends
    assert Status.DIVERGED in ends or shape == 2
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        assert_same(alone(tokens, tmp_path, spec, stop.get(number)), outcome)


_ALONE: dict[tuple[str, int | None], Outcome] = {}


def alone(tokens: Tokens, folder: Path, spec: TrialSpec, stop: int | None) -> Outcome:
    """Train a trial by itself, once for all tests of this module."""
    key = (spec.hash, stop)
    if key not in _ALONE:
        orders = {0: stop} if stop else None
        (_ALONE[key],) = train(tokens, folder, [spec], slots=1, width=1, stop=orders)
    return _ALONE[key]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "width"), [(SHAPES[width % 3], width) for width in range(2, 9)])
def test_slot_does_not_matter(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, width: int, shape: Any
) -> None:
    """One specification in every slot of a stack gives one result."""
    spec = make_spec(model=shape, dropout=0.1, label_smoothing=0.1, steps=6)
    (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
    for outcome in train(tokens, tmp_path, [spec] * width, slots=width, width=width):
        assert_same(alone, outcome)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [SHAPES[1], pytest.param({"d_model": 64, "d_ff": 192}, marks=pytest.mark.slow)]
)
def test_choices_side_by_side_change_nothing(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, shape: Any
) -> None:
    """One stack with all optimizers, schedules, regularizers: each slot equals its trial alone."""
    make = partial(make_spec, model=shape, steps=6)
    specs = [make(optimizer=name, seed=i) for i, name in enumerate(OPTIMIZERS)]
    specs += [make(schedule=name, seed=i) for i, name in enumerate(SCHEDULES)]
    regularisers: list[dict[str, float]] = [
        {"z_loss": 0.01}, {"ema_decay": 0.9}, {"target_sparsity": 0.5, "prune_interval_steps": 1},
        {"grad_clip_value": 0.01}, {"l1_penalty": 0.01}, {"gain_decay": 1}, {"embedding_decay": 1},
        {"label_smoothing": 0.1}, {"dropout": 0.1},
        {"embedding_dropout": 0.1}, {"attention_dropout": 0.1}, {"residual_dropout": 0.1},
        {"token_noise": 0.1}, {},
    ]  # fmt: skip
    specs += [make(**rows) for rows in regularisers]
    together = train(tokens, tmp_path, specs, slots=len(specs), width=len(specs))
    for spec, outcome in zip(specs, together, strict=True):
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
        assert_same(alone, outcome)
        assert outcome[0][-1][0] is Status.FINISHED


@pytest.mark.slow
def test_slot_forgets_the_trial_before(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    """A trial without a mean or a mask in the slot of one with them, and the other way round."""
    rich = make_spec(steps=6, ema_decay=0.9, target_sparsity=0.5, prune_interval_steps=1)
    plain = make_spec(steps=6, seed=1)
    specs = [rich, plain, rich]
    for spec, outcome in zip(specs, train(tokens, tmp_path, specs, slots=1, width=1), strict=True):
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
        assert_same(alone, outcome)


@pytest.mark.parametrize(
    ("choice", "width"),
    [
        *((choice, 3) for choice in SINGLE),
        *(pytest.param(c, (2, 5)[i % 2], marks=pytest.mark.slow) for i, c in enumerate(SINGLE)),
    ],
)
def test_slot_does_not_matter_for_any_choice(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, choice: str, width: int
) -> None:
    sizes = {"d_model": 24, "n_heads": 2, "n_layers": 1, "context_length": 7}
    spec = make_spec(model={**sizes, **SINGLE[choice]}, dropout=0.1, steps=4)
    (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
    for outcome in train(tokens, tmp_path, [spec] * width, slots=width, width=width):
        assert_same(alone, outcome)


@pytest.mark.slow
@settings(max_examples=12)
@given(mix=mixes(), data=st.lists(trials(), min_size=2, max_size=8))
def test_mix_ignores_its_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, mix: dict[str, Any], data: list[Any]
) -> None:
    """Random choices of the architecture, random trials: stacked and alone, the same bits."""
    specs = [make_spec(model=mix, **trial) for trial in data]
    together = train(tokens, tmp_path, specs, slots=len(specs), width=len(specs))
    for spec, outcome in zip(specs, together, strict=True):
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
        assert_same(alone, outcome)


def test_diverging_neighbour_changes_no_bits(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    calm = make_spec(steps=12, dropout=0.1)
    wild = make_spec(
        steps=12, optimizer="sgd", schedule="constant", learning_rate=100.0, weight_decay=10.0,
        grad_clip=0.0, warmup_steps=0,
    )  # fmt: skip
    (alone,) = train(tokens, tmp_path, [calm], slots=1, width=1)
    first, second, third = train(tokens, tmp_path, [wild, calm, wild], slots=3, width=3)
    assert_same(alone, second)
    assert_same(first, third)
    assert first[0][-1][0] is Status.DIVERGED


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1, 2])
def test_refill_during_training_changes_no_bits(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, late: int
) -> None:
    """A slot freed by an early stop is refilled while slots are in the middle of an update."""
    specs = [make_spec(seed=i, steps=9, batch_size=[4, 6, 8, 4, 6][i]) for i in range(5)]
    stop = {0: 1, 2: 2}
    together = train(tokens, tmp_path, specs, slots=2, width=2, stop=stop, late=late)
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        stopped = {0: stop[number]} if number in stop else None
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, stop=stopped)
        assert_same(alone, outcome)
        assert len(outcome[0]) == stop.get(number, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_resume_equals_uninterrupted(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, shape: Any, after: int
) -> None:
    """Interrupted at any report and resumed in another slot, next to others."""
    spec = make_spec(model=shape, steps=11, reports=4, dropout=0.2, token_noise=0.2, grad_clip=0.5)
    other = make_spec(model=shape, seed=9, steps=7)
    (undisturbed,) = train(tokens, tmp_path / "whole", [spec], slots=1, width=1)
    (begun,) = train(tokens, tmp_path / "begun", [spec], slots=1, width=1, stop={0: after})
    saved = last_state(tmp_path / "begun")
    _, resumed = train(
        tokens, tmp_path / "resumed", [other, spec], slots=2, width=3, resume={1: saved}
    )
    assert_same(undisturbed, (begun[0] + resumed[0], resumed[1]))


def resume_anywhere(tmp_path: Path, tokens: Tokens, spec: TrialSpec, other: TrialSpec) -> Outcome:
    """Interrupt a trial at each report in turn; compare with an undisturbed run; return it."""
    (undisturbed,) = train(tokens, tmp_path / "whole", [spec], slots=1, width=1)
    for after in range(1, len(spec.report_steps)):
        begun = tmp_path / f"begun{after}"
        (first,) = train(tokens, begun, [spec], slots=1, width=1, stop={0: after})
        resume = {1: last_state(begun)}
        _, rest = train(
            tokens, tmp_path / f"{after}", [other, spec], slots=2, width=3, resume=resume
        )
        assert_same(undisturbed, (first[0] + rest[0], rest[1]))
    return undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_equals_uninterrupted_with_each_optimizer(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, optimizer: str
) -> None:
    spec = make_spec(optimizer=optimizer, steps=8, reports=4, gain_decay=0.1, l1_penalty=1e-3)
    resume_anywhere(tmp_path, tokens, spec, make_spec(seed=9, steps=7))


@pytest.mark.slow
def test_resume_remembers_the_plateau(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    """A rate so high that the loss rises: later rates depend on earlier reports."""
    spec = make_spec(
        schedule="plateau", optimizer="sgd", max_learning_rate=3.0, steps=12, reports=6,
        plateau_patience=0, plateau_cooldown=1, decay_factor=0.5, warmup_steps=0,
    )  # fmt: skip
    undisturbed = resume_anywhere(tmp_path, tokens, spec, make_spec(seed=9, steps=7))
    rates = {numbers[1 + 1 + METRICS.index("learning_rate")] for numbers in undisturbed[0]}
    assert len(rates) > 1


@pytest.mark.slow
def test_resume_keeps_mean_and_mask(tmp_path: Path, tokens: Tokens, make_spec: MakeSpec) -> None:
    spec = make_spec(
        steps=12, reports=6, ema_decay=0.9, target_sparsity=0.8, prune_interval_steps=2,
        dropout=0.1, z_loss=0.01, grad_clip_value=0.1,
    )  # fmt: skip
    other = make_spec(seed=9, steps=7, ema_decay=0.5)
    resume_anywhere(tmp_path, tokens, spec, other)


def test_resume_refuses_a_finished_trial(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    train(tokens, tmp_path, [make_spec(steps=3)], slots=1, width=1)
    engine = Engine(*tokens)
    engine.add_trial("x", make_spec(steps=3), last_state(tmp_path))
    assert engine.step() == []
    assert engine.num_pending == 0
    with pytest.raises(checkpoint.CheckpointError, match="has finished"):
        raise engine.failures["x"]


def test_resume_refuses_another_specification(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    train(tokens, tmp_path, [make_spec(steps=3)], slots=1, width=1)
    engine = Engine(*tokens)
    engine.add_trial("x", make_spec(steps=4), last_state(tmp_path))
    assert engine.step() == []
    assert engine.num_pending == 0
    with pytest.raises(checkpoint.CheckpointError, match="another specification"):
        raise engine.failures["x"]
