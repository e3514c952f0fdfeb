"""The client of some workers, with fake workers that die and without Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError

from model.engine.report import Report, Status
from tuner.workers import client as client_module
from tuner.workers.batch import ALL_STEPS, Failure, ReportBatch
from tuner.workers.client import BatchReader, TuneTrainable


def batch(*steps: int, segment: int = 5) -> ReportBatch:
    reports = [Report("7", Status.TRAINING, step, step * 32, 3.0, 3.5, 1.0, 0.01) for step in steps]
    return ReportBatch(tuple((segment, report) for report in reports))


class Answer:
    """Reference to the answer of a worker; None: it does not come."""

    def __init__(self, value: ReportBatch | Exception | None) -> None:
        self.value = value


class FakeWorker:
    """Answers each call with the next entry of its script, then not any more."""

    def __init__(self, *script: ReportBatch | Exception | None) -> None:
        self.script = list(script)
        self.calls: list[Mapping[int, int]] = []

    @property
    def next_reports(self) -> FakeWorker:
        return self

    def remote(self, received: Mapping[int, int]) -> Answer:
        self.calls.append(received)
        return Answer(self.script.pop(0) if self.script else None)


class FakeTime:
    """A clock that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()

    def get(answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def wait(answers: list[Answer], num_returns: int = 1, timeout: float = 0.0) -> Any:
        ready = [answer for answer in answers if answer.value is not None]
        if not ready:
            clock.now += timeout
        return ready[:num_returns], []

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(client_module, "time", clock)
    return clock


def gone() -> Exception:
    return ActorUnavailableError("the worker is gone", b"0" * 16)


def reader_of(*workers: FakeWorker) -> BatchReader:
    return BatchReader(dict(enumerate(workers)))


def test_client_says_what_it_has_received() -> None:
    failures = ReportBatch(failures=(Failure(6, "8", "out of memory"),))
    worker = FakeWorker(batch(2, 4), failures, batch(6))
    reader = reader_of(worker)
    for expected in (batch(2, 4), failures, batch(6)):
        assert reader.next_batches() == [(0, expected)]
    assert reader.next_batches() == []
    assert worker.calls == [{}, {5: 4}, {6: ALL_STEPS}, {5: 6}]


def test_client_takes_the_batches_of_all_workers_that_have_one() -> None:
    workers = [FakeWorker(batch(2)), FakeWorker(None), FakeWorker(batch(3), batch(4))]
    reader = BatchReader({3: workers[0], 4: workers[1], 9: workers[2]})
    assert reader.next_batches() == [(3, batch(2)), (9, batch(3))]
    assert reader.next_batches() == [(9, batch(4))]
    assert [len(worker.calls) for worker in workers] == [2, 1, 2], "one call at a time"


def test_client_returns_now_and_then_without_news(clock: FakeTime) -> None:
    """Ray Tune can end a client only between two steps."""
    began = clock.now
    assert reader_of(FakeWorker(None)).next_batches() == []
    assert clock.now - began == pytest.approx(5.0)


@pytest.mark.parametrize("others", [0, 1])
def test_client_asks_a_worker_that_died_again_until_it_is_back(
    clock: FakeTime, others: int
) -> None:
    worker = FakeWorker(batch(2), gone(), gone(), gone(), batch(4, segment=6))
    reader = reader_of(worker, *(FakeWorker() for _ in range(others)))
    assert reader.next_batches() == [(0, batch(2))]
    began = clock.now
    assert reader.next_batches() == [(0, batch(4, segment=6))]
    assert worker.calls[1:] == [{5: 2}] * 4
    assert clock.now - began == pytest.approx(0.6)


def test_client_asks_again_for_an_answer_that_was_lost_with_its_node(clock: FakeTime) -> None:
    worker = FakeWorker(ObjectLostError("0", None, ""), batch(2))
    assert reader_of(worker).next_batches() == [(0, batch(2))]
    assert len(worker.calls) == 2


def test_client_leaves_a_broken_worker_alone_until_it_has_ended(clock: FakeTime) -> None:
    """It answers for another second, and each answer would be a result for Ray Tune."""
    broken = ReportBatch(broken="the engine broke: ValueError: no luck")
    worker = FakeWorker(broken, batch(2))
    reader = reader_of(worker)
    assert reader.next_batches() == [(0, broken)]
    began = clock.now
    assert reader.next_batches() == [(0, batch(2))]
    assert clock.now - began == pytest.approx(1.0, abs=0.2)


def test_client_fails_of_errors_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="strange"):
        reader_of(FakeWorker(ValueError("strange"))).next_batches()


def test_trainable_reads_its_workers_and_is_never_done() -> None:
    workers = [FakeWorker(batch(1)), FakeWorker(batch(2))]
    trial = object.__new__(TuneTrainable)
    trial.setup({"workers": (1,)}, workers)
    assert trial.step() == {"batches": [(1, batch(2))]}
    assert not workers[0].calls


@pytest.mark.slow
def test_client_imports_no_torch() -> None:
    """A process without torch takes 116 MB instead of 244 MB."""
    heavy = {"torch", "model.spec.trial", "pydantic.main"}
    code = f"import sys, tuner.workers.client; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "model.spec.trial" not in done.stdout
