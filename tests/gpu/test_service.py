"""Checkpoints, memory and calibration of an engine on a real GPU: `pytest -m gpu`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.corpus.dataset import TextDataset
from model.corpus.device_dataset import on_device
from model.device.async_copy import begin_copy
from model.device.environment import computing_dtype, environment
from model.device.memory import free_bytes, give_back
from model.device.precision import DTYPES, PRODUCTS, Precision
from model.engine import calibration
from model.engine.calibration import Setup, slots_for, stack_meter, widest_stack
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import TrialSpec
from model.stack import stack
from tests.conftest import MakeSpec
from tests.model.checkpoints.test_writer import states

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Tokens = tuple[np.ndarray, np.ndarray]
CUDA = torch.device("cuda")
LARGE = {"d_model": 256, "n_layers": 4, "n_heads": 4, "context_length": 64, "d_ff": 1024}


@pytest.fixture
def memory() -> Iterator[Any]:
    """Limits the GPU memory of this process in bytes, until the test ends."""
    total = torch.cuda.get_device_properties(CUDA).total_memory

    def allow(size: float) -> None:
        give_back(CUDA)
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), CUDA)

    yield allow
    torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    give_back(CUDA)


def trained(tokens: Tokens, precision: Precision = Precision()) -> Setup:  # noqa: B008 - frozen
    precision.set_up(CUDA)  # as an engine does, before anything is computed
    text = TextDataset(tokens[0])
    return Setup(text, CUDA, precision, on_device(text, CUDA))


def turn_all(engine: Engine, specs: list[TrialSpec]) -> list[Report]:
    for number, spec in enumerate(specs):
        engine.add_trial(str(number), spec)
    reports = []
    while engine.num_pending:
        reports += engine.step()
    return reports


# checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", [{}, LARGE])
def test_asynchronous_states_equal_synchronous_ones(
    tmp_path: Path,
    tokens: Tokens,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    model: dict[str, Any],
) -> None:
    """Rows that train on, or are refilled, while their snapshots are being copied."""
    specs = [make_spec(seed=i, steps=6 + i, reports=3, model=model, dropout=0.1) for i in range(7)]

    def train(folder: Path) -> list[str]:
        made = Engine(*tokens, slots=3, width=3, device="cuda", dtype=dtype, checkpoint_dir=folder)
        return [repr(r).replace(str(folder), "") for r in turn_all(made, specs)]

    actual = train(tmp_path / "a")

    def copy(rows: Any) -> Any:
        torch.cuda.synchronize()
        copies = {name: row.cpu() for name, row in rows.items()}
        return lambda: copies

    def submit(pool: Any, do: Any, *what: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(do(*what))
        return future

    monkeypatch.setattr(stack, "begin_copy", copy)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    assert actual == train(tmp_path / "s")
    assert states(tmp_path / "a") == states(tmp_path / "s")


@pytest.mark.parametrize("is_full", [False, True])
def test_copy_completes_before_original_is_overwritten(
    monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Also where the GPU has no memory for a second copy."""
    if is_full:

        def clone(row: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch.Tensor, "clone", clone)
    row = torch.empty(2**26, device=CUDA)
    pending = []
    for number in range(8):
        row.fill_(number)
        pending.append(begin_copy({"x": row[:-1], "y": row[-1:]}))
    row.fill_(-1)
    for number, copied in enumerate(pending):
        copies = copied()
        assert copies["x"].is_pinned()
        assert bool((copies["x"] == number).all())
        assert copies["y"].tolist() == [number]


# memory -----------------------------------------------------------------------------------------


def test_stack_narrows_when_the_gpu_is_full(
    tokens: Tokens, make_spec: MakeSpec, memory: Any
) -> None:
    """All trials report as without the fault, except for the rounding of another width."""
    specs = [
        make_spec(seed=i, steps=6, reports=2, batch_size=8, micro_batch=8, model=LARGE)
        for i in range(8)
    ]
    peace = turn_all(Engine(*tokens, slots=2, width=2, device="cuda"), specs)
    meter = stack_meter(specs[0], trained(tokens, Precision()))
    peaks = {width: meter(width).peak_bytes for width in (2, 8)}
    assert peaks[8] > 2 * peaks[2]
    memory(0.6 * peaks[8])
    engine = Engine(*tokens, slots=8, width=8, device="cuda")
    reports = turn_all(engine, specs)
    assert engine.failures == {}
    assert 1 <= engine.width < 8
    actual = {(r.trial_id, r.step): r.val_loss for r in reports}
    assert actual == pytest.approx({(r.trial_id, r.step): r.val_loss for r in peace}, rel=1e-2)
    assert len(reports) == len(peace)


def test_trial_that_does_not_fit_fails_alone(
    tokens: Tokens, make_spec: MakeSpec, memory: Any
) -> None:
    giant = make_spec(steps=3, model={**LARGE, "d_ff": 2**18})
    small = make_spec(steps=3)
    memory(2**30)
    engine = Engine(*tokens, slots=2, width=2, device="cuda")
    reports = turn_all(engine, [giant, small])
    assert list(engine.failures) == ["0"]
    assert "does not fit on cuda even alone" in str(engine.failures["0"])
    assert [r.status for r in reports if r.trial_id == "1"][-1] is Status.FINISHED


# calibration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in PRODUCTS])
def test_wider_stacks_are_faster_and_take_more_memory(
    tokens: Tokens, make_spec: MakeSpec, dtype: str
) -> None:
    precision = Precision.of(dtype, CUDA)
    precision.set_up(CUDA)
    meter = stack_meter(make_spec(model=LARGE), trained(tokens, precision))
    narrow, wide = meter(1), meter(8)
    assert wide.speed > 2 * narrow.speed
    assert wide.peak_bytes > narrow.peak_bytes > 0


def test_slots_are_measured_and_remembered(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, on, spec = tmp_path / "calibration.json", trained(tokens), make_spec(model=LARGE)
    slots = slots_for(spec, on, file)
    assert slots >= 4
    monkeypatch.setattr(calibration, "stack_meter", None)
    assert slots_for(spec, on, file) == slots


def test_calibration_ends_where_memory_does(
    tokens: Tokens, make_spec: MakeSpec, memory: Any
) -> None:
    """By extrapolation if the free memory is known; otherwise because memory runs out."""
    spec = make_spec(batch_size=8, micro_batch=8, model=LARGE)
    meter = stack_meter(spec, trained(tokens, Precision()))
    limit = 1.2 * meter(4).peak_bytes
    memory(limit)
    for num_bytes in (limit, free_bytes(CUDA)):
        assert 1 <= widest_stack(meter, num_bytes) <= 5


# the worker -------------------------------------------------------------------------------------


def test_worker_trains_on_the_gpu_in_the_dtype_that_it_says(
    tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    pytest.importorskip("ray")
    from tuner.workers.assignment import Assignment
    from tuner.workers.worker import Worker

    spec = make_spec(steps=12, reports=3)
    dtype = computing_dtype("auto", "cuda")

    async def scenario() -> None:
        folder = str(tmp_path)
        worker = Worker(*tokens, 2, "cuda", folder, folder, dtype="auto")
        assert await worker.slots_for(spec.model_dump_json(), folder + "/calibration.json") >= 1
        assert await worker.environment() == environment("cuda", dtype, worker._engine.width)
        await worker.start(Assignment("7", 0, spec.model_dump_json()))
        reports: list[Report] = []
        while not reports or reports[-1].status is Status.TRAINING:
            last = {0: reports[-1].step} if reports else {}
            reports += [report for _, report in (await worker.next_reports(last)).reports]
            assert reports[-1].checkpoint
        assert [report.step for report in reports] == [4, 8, 12]
        assert reports[-1].status is Status.FINISHED
        await worker.stop("7", 0)

    asyncio.run(asyncio.wait_for(scenario(), 120))
