"""What workers measure of themselves, and the driver's rounds to hear of it."""

from __future__ import annotations

import os
import time

import psutil
import pytest
import torch
from ray.exceptions import ActorUnavailableError

from tests.tuner.workers.scripted_workers import Clock, FakeWorker, hear_fakes
from tuner.workers.load import MetricsPoller, ProcessMeter


def test_meter_measures_its_process() -> None:
    meter = ProcessMeter("cpu")
    until = time.process_time() + 0.3
    began = time.perf_counter()
    while time.process_time() < until:
        pass
    share = 100 * 0.3 / (time.perf_counter() - began)
    found = meter.read()
    assert found.keys() == {"cpu_utilization_percentage", "memory_megabytes"}
    # the kernel counts in hundredths of a second
    assert found["cpu_utilization_percentage"] == pytest.approx(share, rel=0.2)
    resident = psutil.Process(os.getpid()).memory_info().rss / 1e6
    assert found["memory_megabytes"] == pytest.approx(resident, rel=0.2)


def test_meter_measures_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda: 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 87)
    found = ProcessMeter("cuda").read()
    assert found["gpu_memory_megabytes"] == 3000
    assert found["gpu_utilization_percentage"] == 87


def test_meter_does_without_what_a_driver_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise RuntimeError("NVML: not supported")  # as for the utilisation of a MIG slice

    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda: 5_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert ProcessMeter("cuda").read().keys() == {
        "cpu_utilization_percentage", "memory_megabytes", "gpu_memory_megabytes"
    }  # fmt: skip


@pytest.fixture
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_fakes(monkeypatch)


@pytest.mark.usefixtures("_answers")
def test_rounds_ask_every_five_seconds_and_wait_for_nobody() -> None:
    workers, clock = [FakeWorker(), FakeWorker()], Clock()
    rounds = MetricsPoller(workers, clock)
    assert rounds.check() is None
    assert [len(worker.asked) for worker in workers] == [1, 1]
    workers[1].asked[0].value = {"memory_megabytes": 300.0}
    vitals = rounds.check()
    assert vitals is not None
    assert vitals.values == {"system/worker_1/memory_megabytes": 300.0}
    for _ in range(50):
        clock.now += 0.1
        rounds.check()
    assert [len(worker.asked) for worker in workers] == [1, 2], "the first is still awaited"
    workers[0].asked[0].value = ActorUnavailableError("gone", b"0" * 16)
    assert rounds.check() is None
    clock.now += 5
    rounds.check()
    assert len(workers[0].asked) == 2, "it may be back"


@pytest.mark.usefixtures("_answers")
def test_rounds_get_rarer_in_a_long_search() -> None:
    worker, clock = FakeWorker(), Clock()
    rounds = MetricsPoller([worker], clock)
    week = clock.now + 7 * 24 * 3600
    while clock.now < week:
        rounds.check()
        worker.asked[-1].value = {"memory_megabytes": 300.0}
        clock.now += 2.5
    assert 1000 < len(worker.asked) < 5000
