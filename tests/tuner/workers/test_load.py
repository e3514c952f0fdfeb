"""The load of workers: its measurement, and its collection by the driver."""

from __future__ import annotations

import os
import time

import psutil
import pytest
import torch
from ray.exceptions import ActorUnavailableError

from tests.tuner.workers.scripted_workers import Clock, FakeWorker, patch_ray
from tuner.workers.load import MetricsPoller, ProcessMeter


@pytest.mark.slow
def test_meter_measures_its_process() -> None:
    meter = ProcessMeter("cpu")
    until = time.process_time() + 0.3
    began = time.perf_counter()
    while time.process_time() < until:
        pass
    share = 100 * 0.3 / (time.perf_counter() - began)
    values = meter.read()
    assert values.keys() == {"cpu_utilization_percentage", "memory_megabytes"}
    # the kernel counts in hundredths of a second
    assert values["cpu_utilization_percentage"] == pytest.approx(share, rel=0.2)
    resident = psutil.Process(os.getpid()).memory_info().rss / 1e6
    assert values["memory_megabytes"] == pytest.approx(resident, rel=0.2)


def test_meter_measures_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda: 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 87)
    values = ProcessMeter("cuda").read()
    assert values["gpu_memory_megabytes"] == 3000
    assert values["gpu_utilization_percentage"] == 87


def test_meter_leaves_out_values_of_a_failing_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> int:
        raise RuntimeError("NVML: not supported")  # as for the utilisation of a MIG slice

    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda: 5_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert ProcessMeter("cuda").read().keys() == {
        "cpu_utilization_percentage", "memory_megabytes", "gpu_memory_megabytes"
    }  # fmt: skip


@pytest.fixture
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_ray(monkeypatch)


@pytest.mark.usefixtures("_answers")
def test_poller_asks_every_five_seconds_without_waiting() -> None:
    workers, clock = [FakeWorker(), FakeWorker()], Clock()
    poller = MetricsPoller(workers, clock)
    assert poller.poll() is None
    assert [len(worker.asked) for worker in workers] == [1, 1]
    workers[1].asked[0].value = {"memory_megabytes": 300.0}
    metrics = poller.poll()
    assert metrics is not None
    assert metrics.values == {"system/worker_1/memory_megabytes": 300.0}
    for _ in range(50):
        clock.now += 0.1
        poller.poll()
    assert [len(worker.asked) for worker in workers] == [1, 2], "the first has not answered"
    workers[0].asked[0].value = ActorUnavailableError("gone", b"0" * 16)
    assert poller.poll() is None
    clock.now += 5
    poller.poll()
    assert len(workers[0].asked) == 2, "it may be back"


@pytest.mark.usefixtures("_answers")
def test_polls_become_rarer_in_a_long_search() -> None:
    worker, clock = FakeWorker(), Clock()
    poller = MetricsPoller([worker], clock)
    week = clock.now + 7 * 24 * 3600
    while clock.now < week:
        poller.poll()
        worker.asked[-1].value = {"memory_megabytes": 300.0}
        clock.now += 2.5
    assert 1000 < len(worker.asked) < 5000
