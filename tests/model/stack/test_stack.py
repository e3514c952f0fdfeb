"""The GPU's code paths of a stack, run on a CPU: batched updates, graphs, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.corpus.dataset import Dataset, TextDataset
from model.corpus.device_dataset import put
from model.corpus.pairs import PairDataset
from model.device.precision import Precision
from model.engine import engine
from model.optimizers.registry import OPTIMIZERS
from model.stack.cuda_graphs import Graphs, Result
from model.stack.stack import Stack
from tests.conftest import MakeSpec, last_state
from tests.model.architectures import SINGLE
from tests.model.test_law import Outcome, Tokens, assert_same, train

CPU = torch.device("cpu")
SIZES = {"d_model": 24, "n_heads": 2, "n_layers": 1, "context_length": 7}


class Recorded:
    """Captures like torch: nothing runs until the replay, and results keep their memory."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        self.captures += 1
        results: list[torch.Tensor] = []

        def replay() -> None:
            self.replays += 1
            for number, new in enumerate(compute()):
                if number == len(results):
                    results.append(new.clone())
                results[number].copy_(new)

        return replay, results  # type: ignore[return-value]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Every stack reads its data on the device, and runs its ticks as graphs."""
    recorded = Recorded()

    def stack(*arguments: Any, **options: Any) -> Stack:
        return Stack(*arguments, **options, graphs=Graphs(recorded))

    monkeypatch.setattr(engine, "on_device", put)
    monkeypatch.setattr(engine, "Stack", stack)
    return recorded


def assert_near(a: Outcome, b: Outcome, tolerance: float = 1e-4) -> None:
    assert len(a[0]) == len(b[0])
    for one, other in zip(a[0], b[0], strict=True):
        assert one[:2] == other[:2]
        assert one[2:] == pytest.approx(other[2:], rel=tolerance, nan_ok=True)


def everything(make_spec: MakeSpec, **model: Any) -> list[Any]:
    """Return trials that cover all optimizers and regularizers."""
    make = partial(make_spec, model={**SIZES, **model}, steps=6, batch_size=4)
    specs = [make(optimizer=name, seed=i) for i, name in enumerate(OPTIMIZERS)]
    rows: list[dict[str, float]] = [
        {"z_loss": 0.01}, {"ema_decay": 0.9}, {"target_sparsity": 0.5, "prune_interval_steps": 1},
        {"grad_clip_value": 0.01}, {"l1_penalty": 0.01}, {"label_smoothing": 0.1},
        {"dropout": 0.1}, {"attention_dropout": 0.2}, {"token_noise": 0.1}, {"batch_size": 6},
    ]  # fmt: skip
    return specs + [make(**each) for each in rows]


@pytest.mark.slow
def test_whole_matrices_equal_row_by_row(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, request: pytest.FixtureRequest
) -> None:
    """Batched and per-slot updates agree for every optimizer and regularizer."""
    specs = everything(make_spec)
    expected = train(tokens, tmp_path / "rows", specs, slots=1, width=1)
    recorded = request.getfixturevalue("as_on_a_gpu")
    actual = train(tokens, tmp_path / "whole", specs, slots=len(specs), width=len(specs))
    for a, b in zip(expected, actual, strict=True):
        assert_near(a, b)
    assert recorded.captures > 0


@pytest.mark.slow
def test_slots_of_a_gpu_ignore_their_neighbours(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, as_on_a_gpu: Recorded
) -> None:
    """Batched updates, graphs and refills: each trial equals the trial alone, bit for bit."""
    specs = everything(make_spec)
    together = train(tokens, tmp_path, specs, slots=3, width=3, stop={1: 1})
    for number, (spec, outcome) in enumerate(zip(specs, together, strict=True)):
        stop = {0: 1} if number == 1 else None
        (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1, stop=stop)
        assert_same(alone, outcome)


@pytest.mark.slow
def test_graph_outlives_a_refill(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, as_on_a_gpu: Recorded
) -> None:
    """Trials with equal features share one graph for ticks with an update and one for others."""
    specs = [make_spec(seed=i, steps=12, batch_size=4) for i in range(5)]
    train(tokens, tmp_path, specs, slots=2, width=2)
    assert as_on_a_gpu.captures == 2
    assert as_on_a_gpu.replays > 20


def test_graphs_that_are_too_many_are_dropped() -> None:
    recorded = Recorded()
    graphs = Graphs(recorded)
    tick: Any = type("T", (), {"clone": lambda self: self, "copy_": lambda self, other: None})()
    for kind in (*range(17), 16, 0, 1):
        graphs.run(kind, lambda _: (torch.zeros(1),), tick)
    assert recorded.captures == 1, "16 came twice, and the oldest were forgotten in between"


@pytest.mark.slow
@pytest.mark.parametrize("choice", SINGLE)
def test_slot_does_not_matter_in_bfloat16(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
) -> None:
    low = Precision.of("bfloat16", CPU)
    monkeypatch.setattr(engine, "Stack", lambda *a, **o: Stack(*a, **{**o, "precision": low}))
    spec = make_spec(model={**SIZES, **SINGLE[choice]}, dropout=0.1, steps=4)
    (alone,) = train(tokens, tmp_path, [spec], slots=1, width=1)
    assert {tensor.dtype for tensor in (alone[1] or {}).values()} == {torch.float32}
    for outcome in train(tokens, tmp_path, [spec] * 3, slots=3, width=3):
        assert_same(alone, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["shared kv heads", "original", "documents and relative"])
def test_law_holds_in_mixed_bfloat16(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, choice: str
) -> None:
    """In stacks of any width, in interleaved stacks, and resumed beside others: the same bits."""
    run = partial(train, tokens, dtype="mixed_bfloat16")
    make = partial(make_spec, model={**SIZES, **SINGLE[choice]}, dropout=0.1)
    spec, other = make(steps=6, reports=3), make(seed=9, steps=7)
    (alone,) = run(tmp_path / "alone", [spec], slots=1, width=1)
    assert {tensor.dtype for tensor in (alone[1] or {}).values()} == {torch.float32}
    for width in (1, 3):
        _, last = run(tmp_path / f"{width}", [other, spec], slots=2, width=width)
        assert_same(alone, last)
    (begun,) = run(tmp_path / "begun", [spec], slots=1, width=1, stop={0: 1})
    saved = last_state(tmp_path / "begun")
    _, rest = run(tmp_path / "rest", [other, spec], slots=2, width=3, resume={1: saved})
    assert_same(alone, (begun[0] + rest[0], rest[1]))
    (exact,) = train(tokens, tmp_path / "exact", [spec], slots=1, width=1)
    for old, new in zip(exact[0], alone[0], strict=True):
        assert old[2:] != new[2:]
        assert new[2] == pytest.approx(old[2], rel=0.01)


@pytest.mark.slow
def test_bfloat16_reaches_the_loss_of_float32(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(steps=60, reports=3)
    (exact,) = train(tokens, tmp_path, [spec], slots=1, width=1)
    low = Precision.of("bfloat16", CPU)
    monkeypatch.setattr(engine, "Stack", lambda *a, **o: Stack(*a, **{**o, "precision": low}))
    (rounded,) = train(tokens, tmp_path, [spec], slots=1, width=1)
    assert exact[0] != rounded[0]
    first, last = ([r[2] for r in run[0]] for run in (exact, rounded))
    assert last == pytest.approx(first, rel=0.02)


@pytest.mark.parametrize(("name", "device"), [("float16", "cpu"), ("tf32", "cpu"), ("tf32", "mps")])
def test_dtype_that_a_device_does_not_compute_in_is_refused(name: str, device: str) -> None:
    with pytest.raises(ValueError, match=r"dtype must be one of|only GPUs of NVIDIA"):
        Precision.of(name, torch.device(device))


def test_data_on_the_device_are_those_of_the_host(
    tokens: Tokens, pairs: tuple[PairDataset, PairDataset], make_spec: MakeSpec
) -> None:
    wide = TextDataset(
        tokens[0].astype(np.uint32) + 2**31
    )  # ids that a signed integer does not hold
    for data, spec in (
        (TextDataset(tokens[0]), make_spec()),
        (wide, make_spec()),
        (pairs[0], make_spec(model={"n_encoder_layers": 1, "source_length": 6})),
    ):
        assert_read_alike(data, spec.architecture)


def assert_read_alike(data: Dataset, a: Any) -> None:
    numbers = np.random.default_rng(0).integers(0, data.num_sequences(a), size=(3, 5))
    actual = put(data, CPU).batch(torch.from_numpy(numbers), a)
    expected = [ids for ids in data.batch(numbers, a) if ids is not None]
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == torch.int64
        np.testing.assert_array_equal(ours.numpy(), theirs)
