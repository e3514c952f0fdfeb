"""The worker without Ray: its methods are plain coroutines."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.device import compiler
from model.engine import calibration
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from tests.conftest import MakeSpec
from tuner.errors import TrialError, WorkerError
from tuner.workers import worker as worker_module
from tuner.workers.assignment import Assignment
from tuner.workers.worker import Worker

Tokens = tuple[np.ndarray, np.ndarray]
MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(tokens: Tokens, tmp_path: Path) -> Iterator[MakeWorker]:
    """Makes workers whose checkpoints are in tmp_path."""
    workers: list[Worker] = []

    def make(slots: int = 2, **options: Any) -> Worker:
        workers.append(Worker(*tokens, slots, "cpu", str(tmp_path), str(tmp_path), **options))
        return workers[-1]

    yield make
    for worker in workers:  # their threads live on
        for trial_id in worker._segments:
            worker._commands.put(partial(worker._free, trial_id, True))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def start(
    worker: Worker,
    trial_id: str,
    spec: str,
    after: int = 0,
    source: tuple[str, int] | None = None,
    reports: tuple[Report, ...] = (),
) -> None:
    await worker.start(Assignment(trial_id, 0, spec, after, source, reports))


async def comes_soon(awaitable: Awaitable[Any]) -> bool:
    """Return True if the result comes within 0.3 seconds."""
    try:
        await asyncio.wait_for(asyncio.shield(awaitable), 0.3)
    except TimeoutError:
        return False
    return True


async def rest(worker: Worker, trial_id: str, after: int = 0) -> list[Report]:
    """Return the reports of a trial up to its last one."""
    reports = [await worker.next_report(trial_id, after)]
    while reports[-1].status is Status.TRAINING:
        reports.append(await worker.next_report(trial_id, reports[-1].step))
    return reports


def alone(tokens: Tokens, spec: TrialSpec) -> list[dict[str, float]]:
    return [r.metrics() for r in Engine(*tokens).run([spec])]


def test_worker_reports_what_the_engine_reports(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """The first trial starts the engine's thread."""
    spec = make_spec()

    async def scenario() -> None:
        worker = make_worker()
        await start(worker, "7", spec.model_dump_json())
        reports = await rest(worker, "7")
        assert [r.metrics() for r in reports] == alone(tokens, spec)
        assert (await worker.environment())["device"].startswith("cpu: ")
        usage = await worker.usage()
        assert usage["tokens"] == spec.budget_tokens
        assert usage["training_seconds"] > 0
        assert usage["slots"] == 2
        assert usage["seconds"] > usage["training_seconds"]
        assert 0 < usage["idle_seconds"] < usage["seconds"], "since the trial ended"
        free = usage["seconds"] + usage["idle_seconds"]  # one slot had no trial, then both
        assert usage["free_slot_seconds"] == pytest.approx(free)
        ping = await worker.ping()
        assert ping["pid"] == os.getpid()
        assert ping["engine_steps"] >= 3
        assert ping["is_healthy"]

    run(scenario())


@pytest.mark.parametrize(("asked", "dtype"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_worker_reports_its_dtype(make_worker: MakeWorker, asked: str, dtype: str) -> None:
    async def scenario() -> None:
        worker = make_worker(dtype=asked)
        assert (await worker.environment())["dtype"] == dtype
        assert worker._engine.precision.name == dtype

    run(scenario())


@pytest.mark.parametrize(("is_compiled", "entry"), [(False, "no"), (True, "g++ 12")])
def test_worker_reports_if_its_ticks_are_compiled(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch, is_compiled: bool, entry: str
) -> None:
    monkeypatch.setattr(compiler, "check_compiler", lambda: "g++ 12")

    async def scenario() -> None:
        worker = make_worker(is_compiled=is_compiled)
        assert (await worker.environment())["compiled"] == entry
        assert worker._engine._is_compiled is is_compiled

    run(scenario())


def test_worker_measures_the_best_number_of_slots(
    tmp_path: Path, make_spec: MakeSpec, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real stacks on a CPU; the second call reads the file."""
    monkeypatch.setattr(calibration, "_MAX_WIDTH", 4)
    file = tmp_path / "calibration.json"

    async def scenario() -> None:
        text = make_spec().model_dump_json()
        slots = await make_worker().slots_for(text, str(file))
        assert slots in (1, 2, 4)
        monkeypatch.setattr(calibration, "stack_meter", None)
        assert await make_worker().slots_for(text, str(file)) == slots

    run(scenario())
    assert file.is_file()


def test_report_can_be_requested_again(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    """A lost answer is repeated, and a repeated start does not start a second segment."""

    async def scenario() -> None:
        worker, spec = make_worker(), make_spec(steps=12, reports=3)
        await start(worker, "7", spec.model_dump_json())
        first = await worker.next_report("7", 0)
        assert await worker.next_report("7", 0) is first
        third = await worker.next_report("7", 8)
        assert third.step == 12
        await start(worker, "7", spec.model_dump_json(), 4, ("7", 4))
        assert [r.step for r in await rest(worker, "7")] == [4, 8, 12]
        assert (await worker.usage())["tokens"] == spec.budget_tokens

    run(scenario())


def test_two_clients_may_wait_for_one_report(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    """A client that counted as dead, and its successor."""

    async def scenario() -> None:
        worker = make_worker()
        await start(worker, "7", make_spec().model_dump_json())
        both = await asyncio.gather(*(worker.next_report("7", 4) for _ in range(2)))
        assert [r.step for r in both] == [8, 8]

    run(scenario())


def test_gate_holds_reports_back(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker, spec = make_worker(gated=True), make_spec(steps=12, reports=3)
        await worker.release_reports("7", 4)  # before it has started
        await start(worker, "7", spec.model_dump_json())
        assert (await worker.next_report("7", 0)).step == 4
        second = asyncio.ensure_future(worker.next_report("7", 4))
        assert not await comes_soon(second)
        await worker.release_reports("7", 2)  # an earlier step withdraws nothing
        await worker.release_reports("7", 8)
        await worker.release_reports("7", 8)
        assert (await second).step == 8
        third = asyncio.ensure_future(worker.next_report("7", 8))
        assert not await comes_soon(third)
        await worker.release_reports("7", 100)
        assert (await third).status is Status.FINISHED
        await worker.stop("7")
        await start(worker, "7", spec.model_dump_json())
        assert not await comes_soon(worker.next_report("7", 0)), "stop withdrew the releases"

    run(scenario())


def test_gate_holds_reports_of_a_diverged_trial_back(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    async def scenario() -> None:
        worker = make_worker(gated=True)
        wild = make_spec(
            steps=40, reports=4, optimizer="sgd", schedule="constant", learning_rate=100.0,
            weight_decay=10.0, grad_clip=0.0, warmup_steps=0,
        )  # fmt: skip
        await start(worker, "7", wild.model_dump_json())
        await worker.release_reports("7", 40)
        reports = await rest(worker, "7")
        assert reports[-1].status is Status.DIVERGED

    run(scenario())


@pytest.mark.slow
def test_new_worker_resumes_after_the_last_report(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    spec = make_spec(steps=12, reports=6, dropout=0.1)
    expected = alone(tokens, spec)

    async def scenario() -> None:
        first = make_worker()
        await start(first, "7", spec.model_dump_json())
        await first.next_report("7", 4)
        again = make_worker()
        await start(again, "7", spec.model_dump_json(), 4, ("7", 4))
        reports = await rest(again, "7", 4)
        assert [r.step for r in reports] == [6, 8, 10, 12]
        assert [r.metrics() for r in reports] == expected[2:]
        assert (await again.usage())["tokens"] == 8 * spec.tokens_per_step

    run(scenario())


@pytest.mark.slow
def test_paused_trial_resumes_in_either_order_of_stop_and_start(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    spec = make_spec(steps=12, reports=6, dropout=0.1)
    expected = alone(tokens, spec)

    async def scenario() -> None:
        worker = make_worker()
        for overtaken in (False, True):
            name, text = f"7{overtaken}", spec.model_dump_json()
            await start(worker, name, text)
            await worker.next_report(name, 2)
            if not overtaken:
                await worker.stop(name, step=4)
                with pytest.raises(TrialError, match="this worker does not train trial"):
                    await worker.next_report(name, 4)
            await start(worker, name, text, 4, (name, 4))
            if overtaken:
                await worker.stop(name, step=4)
            assert [r.metrics() for r in await rest(worker, name, 4)] == expected[2:]

    run(scenario())


@pytest.mark.slow
def test_stop_frees_the_slot_and_fails_waiting_clients(
    tmp_path: Path, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    async def scenario() -> None:
        worker = make_worker(slots=1, gated=True)
        await start(worker, "7", make_spec(steps=4000, reports=1000).model_dump_json())
        waits = asyncio.ensure_future(worker.next_report("7", 0))
        await start(worker, "8", make_spec(steps=12, reports=3).model_dump_json())
        await worker.release_reports("8", 12)
        assert not await comes_soon(worker.next_report("8", 0)), "there is one slot"
        await worker.stop("7", keep=False)
        with pytest.raises(TrialError, match="trial 7 was stopped"):
            await waits
        await worker.stop("7")
        await worker.prune_checkpoints("8", 8)
        assert [r.step for r in await rest(worker, "8")] == [4, 8, 12]
        assert not (tmp_path / "7").exists()
        await worker.prune_checkpoints("8", 12)
        await worker.stop("8")
        await start(worker, "9", make_spec(steps=3).model_dump_json())
        await worker.release_reports("9", 3)
        await rest(worker, "9")
        assert sorted(p.name for p in (tmp_path / "8").iterdir()) == [
            "000000008.safetensors",
            "000000012.safetensors",
        ]

    run(scenario())


def test_reports_of_an_equal_trial_are_delivered_instead(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """The gate holds them back too; the engine does not train."""
    spec = make_spec(steps=12, reports=3)
    reports = [
        Report("2", Status.TRAINING, step, step * 32, 3.0 - step / 100, 3.0, 1.0, 0.1)
        for step in (4, 8)
    ]
    diverged = dataclasses.replace(reports[-1], status=Status.DIVERGED, step=11, val_loss=math.nan)
    reports.append(diverged)

    async def scenario() -> None:
        worker = make_worker(gated=True)
        await start(worker, "7", spec.model_dump_json(), reports=tuple(reports))
        first = asyncio.ensure_future(worker.next_report("7", 0))
        assert not await comes_soon(first)
        await worker.release_reports("7", 11)
        assert await first == dataclasses.replace(reports[0], trial_id="7")
        last = (await rest(worker, "7", 4))[-1]
        assert (last.status, last.step) == (Status.DIVERGED, 11)
        assert math.isnan(last.val_loss)
        assert (await worker.usage())["tokens"] == 0
        await worker.stop("7")

    run(scenario())


@pytest.mark.slow
def test_child_resumes_from_the_parents_checkpoint(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    parent = make_spec(steps=12, reports=6)
    own = parent.model_dump(exclude={"continues"}) | {"seed": 5}
    child = TrialSpec(**own, continues=Continues(spec=parent, step=4))
    expected = alone(tokens, child)

    async def scenario() -> None:
        worker = make_worker()
        await start(worker, "1", parent.model_dump_json())
        await rest(worker, "1")
        before = (await worker.usage())["tokens"]
        await start(worker, "2", child.model_dump_json(), 0, ("1", 4))
        reports = await rest(worker, "2")
        assert [r.step for r in reports] == [6, 8, 10, 12]
        assert [r.metrics() for r in reports] == expected
        assert (await worker.usage())["tokens"] == before + 8 * child.tokens_per_step

    run(scenario())


def test_trial_that_cannot_be_trained_fails_alone(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    async def scenario() -> None:
        worker = make_worker()
        good = make_spec(steps=12, reports=3)
        await start(worker, "good", good.model_dump_json())
        with pytest.raises(TrialError, match="invalid specification"):
            await start(worker, "broken", "{}")
        too_large = good.model_copy(update={"validation_sequences": 10**6})
        await start(worker, "large", too_large.model_dump_json())
        for _ in range(2):
            with pytest.raises(TrialError, match="reads 1000000 validation sequences"):
                await worker.next_report("large", 0)
        await start(worker, "over", good.model_dump_json(), 12)
        with pytest.raises(TrialError, match="has made its last report, at update 12"):
            await worker.next_report("over", 12)
        with pytest.raises(TrialError, match="this worker does not train trial x"):
            await worker.next_report("x", 0)
        assert (await rest(worker, "good"))[-1].status is Status.FINISHED

    run(scenario())


def test_worker_passes_the_error_of_the_engine_on_and_exits(
    make_spec: MakeSpec, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(worker_module, "_exit_process", ended.set)
    monkeypatch.setattr(worker_module, "_EXIT_DELAY_SECONDS", 0.1)

    def explode() -> None:
        raise RuntimeError("out of luck")

    async def scenario() -> None:
        worker = make_worker()
        monkeypatch.setattr(worker._engine, "step", explode)
        text = make_spec().model_dump_json()
        await start(worker, "a", text)
        for _ in range(2):  # a client that waits, and one that asks later
            with pytest.raises(WorkerError, match="RuntimeError: out of luck"):
                await worker.next_report("a", 0)
        with pytest.raises(WorkerError, match="out of luck"):  # and takes no more trials
            await start(worker, "b", text)
        with pytest.raises(WorkerError, match="out of luck"):
            await worker.next_report("b", 0)
        assert not (await worker.ping())["is_healthy"]
        assert not ended.is_set(), "waiting clients receive the error first"
        await asyncio.sleep(0.3)
        assert ended.is_set()

    run(scenario())
