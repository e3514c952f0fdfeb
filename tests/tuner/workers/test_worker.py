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

from model.engine import calibration
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.trial import Continues, TrialSpec
from tests.conftest import MakeSpec
from tuner.errors import TrialError, WorkerError
from tuner.workers import worker as worker_module
from tuner.workers.worker import Worker

Tokens = tuple[np.ndarray, np.ndarray]
MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(tokens: Tokens, tmp_path: Path) -> Iterator[MakeWorker]:
    """A worker whose states lie in tmp_path; also several, one after the other."""
    made: list[Worker] = []

    def make(slots: int = 2, **options: Any) -> Worker:
        made.append(Worker(*tokens, slots, "cpu", str(tmp_path), str(tmp_path), **options))
        return made[-1]

    yield make
    for worker in made:  # whose threads live on
        for trial_id in worker._legs:
            worker._orders.put(partial(worker._free, trial_id, True))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def comes(awaitable: Awaitable[Any]) -> bool:
    """Whether something is there after a while."""
    try:
        await asyncio.wait_for(asyncio.shield(awaitable), 0.3)
    except TimeoutError:
        return False
    return True


async def rest(worker: Worker, trial_id: str, after: int = 0) -> list[Report]:
    """A trial's reports up to its last one."""
    reports = [await worker.next_report(trial_id, after)]
    while reports[-1].status is Status.TRAINING:
        reports.append(await worker.next_report(trial_id, reports[-1].step))
    return reports


def alone(tokens: Tokens, spec: TrialSpec) -> list[dict[str, float]]:
    return [r.metrics() for r in Engine(*tokens).run([spec])]


def test_worker_reports_what_the_engine_reports(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """The engine starts with the first trial: nobody asked for anything before."""
    spec = make_spec()

    async def scenario() -> None:
        worker = make_worker()
        await worker.start("7", spec.model_dump_json())
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
        pulse = await worker.pulse()
        assert pulse["pid"] == os.getpid()
        assert pulse["turns"] >= 3
        assert pulse["is_well"]

    run(scenario())


@pytest.mark.parametrize(("asked", "dtype"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_worker_says_in_which_dtype_it_trains(
    make_worker: MakeWorker, asked: str, dtype: str
) -> None:
    async def scenario() -> None:
        worker = make_worker(dtype=asked)
        assert (await worker.environment())["dtype"] == dtype
        assert worker._engine.precision.name == dtype

    run(scenario())


def test_worker_measures_how_many_slots_its_device_should_have(
    tmp_path: Path, make_spec: MakeSpec, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks on a CPU, for real; the second time it is remembered."""
    monkeypatch.setattr(calibration, "_MOST", 4)
    file = tmp_path / "calibration.json"

    async def scenario() -> None:
        text = make_spec().model_dump_json()
        found = await make_worker().slots_for(text, str(file))
        assert found in (1, 2, 4)
        monkeypatch.setattr(calibration, "stack_meter", None)
        assert await make_worker().slots_for(text, str(file)) == found

    run(scenario())
    assert file.is_file()


def test_report_can_be_asked_for_again(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    """An answer that was lost on the way is given again, and a start is no second one."""

    async def scenario() -> None:
        worker, spec = make_worker(), make_spec(steps=12, reports=3)
        await worker.start("7", spec.model_dump_json())
        first = await worker.next_report("7", 0)
        assert await worker.next_report("7", 0) is first
        third = await worker.next_report("7", 8)
        assert third.step == 12
        await worker.start("7", spec.model_dump_json(), 4, ("7", 4))
        assert [r.step for r in await rest(worker, "7")] == [4, 8, 12]
        assert (await worker.usage())["tokens"] == spec.budget_tokens

    run(scenario())


def test_two_may_wait_for_one_report(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    """A client that was thought dead, and the one in its place."""

    async def scenario() -> None:
        worker = make_worker()
        await worker.start("7", make_spec().model_dump_json())
        both = await asyncio.gather(*(worker.next_report("7", 4) for _ in range(2)))
        assert [r.step for r in both] == [8, 8]

    run(scenario())


def test_gate_holds_reports_back(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker, spec = make_worker(gated=True), make_spec(steps=12, reports=3)
        await worker.allow("7", 4)  # before it has started
        await worker.start("7", spec.model_dump_json())
        assert (await worker.next_report("7", 0)).step == 4
        second = asyncio.ensure_future(worker.next_report("7", 4))
        assert not await comes(second)
        await worker.allow("7", 2)  # an old message does not close it
        await worker.allow("7", 8)
        await worker.allow("7", 8)
        assert (await second).step == 8
        third = asyncio.ensure_future(worker.next_report("7", 8))
        assert not await comes(third)
        await worker.allow("7", 100)
        assert (await third).status is Status.FINISHED
        await worker.stop("7")
        await worker.start("7", spec.model_dump_json())
        assert not await comes(worker.next_report("7", 0)), "the gate was forgotten"

    run(scenario())


def test_diverged_trial_waits_at_the_gate_too(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker = make_worker(gated=True)
        wild = make_spec(
            steps=40, reports=4, optimizer="sgd", schedule="constant", learning_rate=100.0,
            weight_decay=10.0, grad_clip=0.0, warmup_steps=0,
        )  # fmt: skip
        await worker.start("7", wild.model_dump_json())
        await worker.allow("7", 40)
        reports = await rest(worker, "7")
        assert reports[-1].status is Status.DIVERGED

    run(scenario())


def test_new_worker_goes_on_after_the_last_report(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    spec = make_spec(steps=12, reports=6, dropout=0.1)
    expected = alone(tokens, spec)

    async def scenario() -> None:
        first = make_worker()
        await first.start("7", spec.model_dump_json())
        await first.next_report("7", 4)
        again = make_worker()
        await again.start("7", spec.model_dump_json(), 4, ("7", 4))
        reports = await rest(again, "7", 4)
        assert [r.step for r in reports] == [6, 8, 10, 12]
        assert [r.metrics() for r in reports] == expected[2:]
        assert (await again.usage())["tokens"] == 8 * spec.tokens_per_step

    run(scenario())


def test_parked_trial_comes_back_whatever_order_the_orders_arrive_in(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    spec = make_spec(steps=12, reports=6, dropout=0.1)
    expected = alone(tokens, spec)

    async def scenario() -> None:
        worker = make_worker()
        for overtaken in (False, True):
            name, text = f"7{overtaken}", spec.model_dump_json()
            await worker.start(name, text)
            await worker.next_report(name, 2)
            if not overtaken:
                await worker.stop(name, step=4)
                with pytest.raises(TrialError, match="not in training here"):
                    await worker.next_report(name, 4)
            await worker.start(name, text, 4, (name, 4))
            if overtaken:
                await worker.stop(name, step=4)
            assert [r.metrics() for r in await rest(worker, name, 4)] == expected[2:]

    run(scenario())


def test_stop_frees_the_slot_and_tells_who_waits(
    tmp_path: Path, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    async def scenario() -> None:
        worker = make_worker(slots=1, gated=True)
        await worker.start("7", make_spec(steps=4000, reports=1000).model_dump_json())
        waits = asyncio.ensure_future(worker.next_report("7", 0))
        await worker.start("8", make_spec(steps=12, reports=3).model_dump_json())
        await worker.allow("8", 12)
        assert not await comes(worker.next_report("8", 0)), "there is one slot"
        await worker.stop("7", keep=False)
        with pytest.raises(TrialError, match="trial 7 was stopped"):
            await waits
        await worker.stop("7")
        await worker.acknowledge("8", 8)
        assert [r.step for r in await rest(worker, "8")] == [4, 8, 12]
        assert not (tmp_path / "7").exists()
        await worker.acknowledge("8", 12)
        await worker.stop("8")
        await worker.start("9", make_spec(steps=3).model_dump_json())
        await worker.allow("9", 3)
        await rest(worker, "9")
        assert sorted(p.name for p in (tmp_path / "8").iterdir()) == [
            "000000008.safetensors",
            "000000012.safetensors",
        ]

    run(scenario())


def test_reports_of_an_equal_trial_are_delivered_instead(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """Through the gate, and without the engine."""
    spec = make_spec(steps=12, reports=3)
    made = [
        Report("2", Status.TRAINING, step, step * 32, 3.0 - step / 100, 3.0, 1.0, 0.1)
        for step in (4, 8)
    ]
    made.append(dataclasses.replace(made[-1], status=Status.DIVERGED, step=11, val_loss=math.nan))
    fields = [dataclasses.asdict(report) for report in made]
    fields[-1] |= {"status": "diverged", "val_loss": None}  # as JSON has it

    async def scenario() -> None:
        worker = make_worker(gated=True)
        await worker.start("7", spec.model_dump_json(), 0, None, fields)
        first = asyncio.ensure_future(worker.next_report("7", 0))
        assert not await comes(first)
        await worker.allow("7", 11)
        assert await first == dataclasses.replace(made[0], trial_id="7")
        last = (await rest(worker, "7", 4))[-1]
        assert (last.status, last.step) == (Status.DIVERGED, 11)
        assert math.isnan(last.val_loss)
        assert (await worker.usage())["tokens"] == 0
        await worker.stop("7")

    run(scenario())


def test_child_goes_on_from_the_parents_state(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    parent = make_spec(steps=12, reports=6)
    own = parent.model_dump(exclude={"continues"}) | {"seed": 5}
    child = TrialSpec(**own, continues=Continues(spec=parent, step=4))
    expected = alone(tokens, child)

    async def scenario() -> None:
        worker = make_worker()
        await worker.start("1", parent.model_dump_json())
        await rest(worker, "1")
        before = (await worker.usage())["tokens"]
        await worker.start("2", child.model_dump_json(), 0, ("1", 4))
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
        await worker.start("good", good.model_dump_json())
        with pytest.raises(TrialError, match="the specification is none"):
            await worker.start("broken", "{}")
        too_large = good.model_copy(update={"validation_sequences": 10**6})
        await worker.start("large", too_large.model_dump_json())
        for _ in range(2):
            with pytest.raises(TrialError, match="reads 1000000 validation sequences"):
                await worker.next_report("large", 0)
        await worker.start("over", good.model_dump_json(), 12)
        with pytest.raises(TrialError, match="has made its last report, at update 12"):
            await worker.next_report("over", 12)
        with pytest.raises(TrialError, match="trial x is not in training here"):
            await worker.next_report("x", 0)
        assert (await rest(worker, "good"))[-1].status is Status.FINISHED

    run(scenario())


def test_worker_passes_on_what_the_engine_died_of_and_ends(
    make_spec: MakeSpec, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(worker_module, "_end_process", ended.set)
    monkeypatch.setattr(worker_module, "_LAST_WORDS_SECONDS", 0.1)

    def explode() -> None:
        raise RuntimeError("out of luck")

    async def scenario() -> None:
        worker = make_worker()
        monkeypatch.setattr(worker._engine, "turn", explode)
        text = make_spec().model_dump_json()
        await worker.start("a", text)
        for _ in range(2):  # the one who waits, and the one who asks later
            with pytest.raises(WorkerError, match="RuntimeError: out of luck"):
                await worker.next_report("a", 0)
        with pytest.raises(WorkerError, match="out of luck"):  # and takes no more trials
            await worker.start("b", text)
        with pytest.raises(WorkerError, match="out of luck"):
            await worker.next_report("b", 0)
        assert not (await worker.pulse())["is_well"]
        assert not ended.is_set(), "those who wait are told first"
        await asyncio.sleep(0.3)
        assert ended.is_set()

    run(scenario())
