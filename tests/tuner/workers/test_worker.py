"""The worker without Ray: its methods are plain coroutines."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import tempfile
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
from tuner.storage.storage import Storage
from tuner.workers import worker as worker_module
from tuner.workers.assignment import Assignment
from tuner.workers.batch import Failure, ReportBatch
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
    segment: int = 0,
) -> None:
    await worker.start(Assignment(trial_id, 0, spec, after, source, reports, segment))


class Client:
    """Asks a worker for batches, and says what it has received."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._received: dict[int, int] = {}
        self.reports: list[tuple[int, Report]] = []
        self.failures: list[Failure] = []

    async def read(self) -> ReportBatch:
        batch = await self._worker.next_reports(self._received)
        self._received = batch.received
        self.reports += batch.reports
        self.failures += batch.failures
        return batch

    def of(self, trial_id: str) -> list[Report]:
        return [report for _, report in self.reports if report.trial_id == trial_id]

    async def rest(self, trial_id: str) -> list[Report]:
        """Read until a trial has ended; return all its reports."""
        while not self.of(trial_id) or self.of(trial_id)[-1].status is Status.TRAINING:
            await self.read()
        return self.of(trial_id)


async def comes_soon(awaitable: Awaitable[Any]) -> bool:
    """Return True if the result comes within 0.3 seconds."""
    try:
        await asyncio.wait_for(asyncio.shield(awaitable), 0.3)
    except TimeoutError:
        return False
    return True


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
        reports = await Client(worker).rest("7")
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


@pytest.mark.slow
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


def test_reports_are_sent_again_until_they_are_received(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """A lost answer is repeated, also to another client, and a repeated start starts nothing."""

    async def scenario() -> None:
        worker, spec = make_worker(), make_spec(steps=12, reports=3)
        await start(worker, "7", spec.model_dump_json(), segment=3)
        lost = await worker.next_reports({})
        client = Client(worker)
        assert [r.step for r in await client.rest("7")] == [4, 8, 12]
        assert {segment for segment, _ in client.reports} == {3}
        assert client.reports[: len(lost.reports)] == [*lost.reports]
        await start(worker, "7", spec.model_dump_json(), segment=3)
        assert not await comes_soon(client.read())

    run(scenario())


def test_later_assignment_of_a_trial_gets_its_reports_from_its_beginning_on(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """The trial was paused after its first report, and its client has received more by then."""

    async def scenario() -> None:
        worker, spec = make_worker(), make_spec(steps=12, reports=3)
        await start(worker, "7", spec.model_dump_json(), segment=3)
        client = Client(worker)
        await client.rest("7")
        await start(worker, "7", spec.model_dump_json(), 4, ("7", 4), segment=4)
        await start(worker, "7", spec.model_dump_json(), 0, segment=3)  # repeated, and late
        again = await worker.next_reports({3: 12})
        assert [(segment, r.step) for segment, r in again.reports] == [(4, 8), (4, 12)]
        assert (await worker.usage())["tokens"] == spec.budget_tokens, "nothing is trained again"
        await worker.prune_checkpoints("7", 8)
        again = await worker.next_reports({})
        assert [(segment, r.step) for segment, r in again.reports] == [(4, 12)]

    run(scenario())


def test_waiting_ends_with_the_search(make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker = make_worker()
        waits = asyncio.ensure_future(worker.next_reports({}))
        assert not await comes_soon(waits)
        await worker.end_waiting()
        assert await waits == await worker.next_reports({}) == ReportBatch()

    run(scenario())


def test_worker_reports_that_a_trial_diverged(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker = make_worker()
        wild = make_spec(
            steps=40, reports=4, optimizer="sgd", schedule="constant", learning_rate=100.0,
            weight_decay=10.0, grad_clip=0.0, warmup_steps=0,
        )  # fmt: skip
        await start(worker, "7", wild.model_dump_json())
        reports = await Client(worker).rest("7")
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
        await Client(first).rest("7")
        again = make_worker()
        await start(again, "7", spec.model_dump_json(), 4, ("7", 4))
        reports = await Client(again).rest("7")
        assert [r.step for r in reports] == [6, 8, 10, 12]
        assert [r.metrics() for r in reports] == expected[2:]
        assert (await again.usage())["tokens"] == 8 * spec.tokens_per_step

    run(scenario())


@pytest.mark.slow
def test_worker_on_another_disk_resumes_from_storage(
    tokens: Tokens, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not see the home, and prunes and deletes what is in storage."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = make_spec(steps=12, reports=6, dropout=0.1)
    expected = alone(tokens, spec)
    url = f"file://{tmp_path}/bucket/lm-1"
    storage = Storage(url)

    def worker_on(disk: str) -> Worker:
        folder = tmp_path / disk / "checkpoints"
        return Worker(*tokens, 2, "cpu", str(folder), str(tmp_path / "starts"), storage=url)

    async def scenario() -> None:
        (tmp_path / "first").mkdir()
        first = worker_on("first")
        await start(first, "7", spec.model_dump_json())
        client = Client(first)
        while len(client.of("7")) < 2:
            await client.read()
        await first.stop("7", 0)
        assert await first.send_states(10.0) == 0
        steps = [int(Path(name).stem) for name in storage.files("checkpoints")]
        last = min(steps)  # it may have trained to the end
        again = worker_on("again")
        await start(again, "7", spec.model_dump_json(), last, ("7", last), segment=1)
        reports = await Client(again).rest("7")
        assert [r.metrics() for r in reports] == expected[last // 2 :]
        assert (await again.usage())["tokens"] == (12 - last) * spec.tokens_per_step
        await again.prune_checkpoints("7", 12)
        assert await again.send_states(10.0) == 0
        assert {"checkpoints/7/000000012.safetensors"} <= set(storage.files("checkpoints"))
        await again.stop("7", 1, keep=False)
        while storage.files("checkpoints"):
            await asyncio.sleep(0.01)
        assert await again.send_states(10.0) == 0
        assert not (tmp_path / "again").exists()
        assert list(tmp_path.glob("tuner-*"))
        await again.forget_states()
        assert not list(tmp_path.glob("tuner-*"))

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
            await start(worker, name, text, segment=1)
            await Client(worker).rest(name)
            if not overtaken:
                await worker.stop(name, 1)
                assert not await comes_soon(worker.next_reports({}))
            await start(worker, name, text, 4, (name, 4), segment=2)
            if overtaken:
                await worker.stop(name, 1)
            client = Client(worker)
            assert [r.metrics() for r in await client.rest(name)] == expected[2:]
            assert {segment for segment, _ in client.reports} == {2}
            await worker.stop(name, 2)

    run(scenario())


def test_stop_that_overtakes_its_start_counts(make_spec: MakeSpec, make_worker: MakeWorker) -> None:
    async def scenario() -> None:
        worker, text = make_worker(), make_spec().model_dump_json()
        await worker.stop("7", 2)
        await start(worker, "7", text, segment=2)
        assert not await comes_soon(worker.next_reports({}))
        await start(worker, "7", text, segment=3)
        await Client(worker).rest("7")

    run(scenario())


@pytest.mark.slow
def test_stop_frees_the_slot_and_withdraws_reports(
    tmp_path: Path, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    async def scenario() -> None:
        worker = make_worker(slots=1)
        client = Client(worker)
        await start(worker, "7", make_spec(steps=4000, reports=1000).model_dump_json())
        await start(worker, "8", make_spec(steps=12, reports=3).model_dump_json(), segment=1)
        while len(client.of("7")) < 3:
            await client.read()
        assert not client.of("8"), "there is one slot"
        before = len(client.of("7"))
        await worker.stop("7", 0, keep=False)
        await worker.stop("7", 0)
        await worker.prune_checkpoints("8", 3)
        assert [r.step for r in await client.rest("8")] == [4, 8, 12]
        assert len(client.of("7")) == before
        assert not (tmp_path / "7").exists()
        await worker.prune_checkpoints("8", 12)
        await worker.stop("8", 1)
        await start(worker, "9", make_spec(steps=3).model_dump_json(), segment=2)
        await client.rest("9")
        assert sorted(p.name for p in (tmp_path / "8").iterdir()) == [
            "000000008.safetensors",
            "000000012.safetensors",
        ]

    run(scenario())


def test_reports_of_an_equal_trial_are_delivered_instead(
    make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """The engine does not train."""
    spec = make_spec(steps=12, reports=3)
    reports = [
        Report("2", Status.TRAINING, step, step * 32, 3.0 - step / 100, 3.0, 1.0, 0.1)
        for step in (4, 8)
    ]
    diverged = dataclasses.replace(reports[-1], status=Status.DIVERGED, step=11, val_loss=math.nan)
    reports.append(diverged)

    async def scenario() -> None:
        worker = make_worker()
        await start(worker, "7", spec.model_dump_json(), reports=tuple(reports))
        client = Client(worker)
        await client.read()
        first, second, last = client.of("7")
        assert (first, second.step) == (dataclasses.replace(reports[0], trial_id="7"), 8)
        assert (last.status, last.step) == (Status.DIVERGED, 11)
        assert math.isnan(last.val_loss)
        assert (await worker.usage())["tokens"] == 0
        await worker.stop("7", 0)

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
        client = Client(worker)
        await start(worker, "1", parent.model_dump_json(), segment=1)
        await client.rest("1")
        before = (await worker.usage())["tokens"]
        await start(worker, "2", child.model_dump_json(), 0, ("1", 4), segment=2)
        reports = await client.rest("2")
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
        too_large = good.model_copy(update={"validation_sequences": 10**6})
        await start(worker, "good", good.model_dump_json(), segment=1)
        await start(worker, "broken", "{}", segment=2)
        await start(worker, "large", too_large.model_dump_json(), segment=3)
        await start(worker, "over", good.model_dump_json(), 12, segment=4)
        client = Client(worker)
        assert (await client.rest("good"))[-1].status is Status.FINISHED
        while len(client.failures) < 3:
            await client.read()
        assert not await comes_soon(client.read()), "each is sent once"
        reasons = {(f.segment, f.trial_id): f.reason for f in client.failures}
        assert "invalid specification: " in reasons[2, "broken"]
        assert "reads 1000000 validation sequences" in reasons[3, "large"]
        assert "has made its last report, at update 12" in reasons[4, "over"]
        assert not any("\n" in reason for reason in reasons.values())

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
        await start(worker, "a", text, segment=1)
        assert await worker.next_reports({}) == ReportBatch(
            broken="the engine broke: RuntimeError: out of luck"
        )
        await start(worker, "b", text, segment=2)
        assert worker._commands.empty(), "it takes no more trials"
        assert (await worker.next_reports({})).broken
        assert not ended.is_set(), "the client receives the error first"
        await asyncio.sleep(0.3)
        assert ended.is_set()

    run(scenario())


def test_worker_sends_the_copied_reports_of_a_branch_and_trains_the_rest(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker
) -> None:
    """As a trial from update 0; resumed after any of them, it sends what is left."""
    rows = {"schedule": "wsd", "warmup_steps": 2, "cooldown_steps": 2}
    trunk = make_spec(steps=20, reports=5, **rows)
    branch = make_spec(steps=11, **rows).model_copy(update={"report_tokens": trunk.report_tokens})

    async def scenario() -> None:
        worker = make_worker()
        client = Client(worker)
        await start(worker, "3", trunk.model_dump_json())
        copied = tuple(report for report in await client.rest("3") if report.step <= 8)
        before = worker._engine.tokens
        for number, after in enumerate((0, 4, 8)):
            name = str(10 + number)
            text = branch.model_dump_json()
            await start(worker, name, text, after, ("3", 8), copied, segment=number + 1)
            reports = await client.rest(name)
            expected = [step for step in (4, 8, 11) if step > after]
            assert [report.step for report in reports] == expected
            metrics = [report.metrics() for report in reports]
            assert metrics == alone(tokens, branch)[-len(expected) :]
        assert worker._engine.tokens - before == 3 * 3 * branch.tokens_per_step

    run(scenario())


def test_worker_keeps_the_states_that_branches_need(
    tokens: Tokens, make_spec: MakeSpec, make_worker: MakeWorker, tmp_path: Path
) -> None:
    spec = make_spec(steps=20, reports=5)

    async def scenario() -> None:
        worker = make_worker()
        client = Client(worker)
        await start(worker, "3", spec.model_dump_json())
        await client.rest("3")
        await worker.prune_checkpoints("3", 20, (8,))
        await start(worker, "4", spec.model_dump_json(), segment=1)
        await client.rest("4")  # the command before it was run
        names = sorted(path.name for path in (tmp_path / "3").glob("*.safetensors"))
        assert [int(name.split(".")[0]) for name in names] == [8, 16, 20]

    run(scenario())
