"""The memory of GPUs, by calls that are replaced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.device.memory import begin_peak, free_bytes, give_back, peak_bytes

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda:1", "mps"))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CUDA device and a Mac's; the calls that change something."""
    calls: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *device: calls.append(name)

    def of_cuda(value: Any) -> Callable[[torch.device], Any]:
        def answer(device: torch.device) -> Any:
            assert device == CUDA
            return value

        return answer

    monkeypatch.setattr(torch.cuda, "empty_cache", note("cuda empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", note("cuda reset"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", of_cuda((50, 100)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", of_cuda(7))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", of_cuda(30))
    monkeypatch.setattr(torch.mps, "empty_cache", note("mps empty"))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 80)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 20)
    return calls


def test_memory_of_each_device(called: list[str]) -> None:
    assert [free_bytes(device) for device in (CPU, CUDA, MPS)] == [math.inf, 57, 80]
    assert [peak_bytes(device) for device in (CPU, CUDA, MPS)] == [0, 30, 20]
    assert called == ["cuda empty", "mps empty"]


def test_give_back_empties_the_cache(called: list[str]) -> None:
    for device in (CPU, CUDA, MPS):
        give_back(device)
    for device in (CPU, CUDA, MPS):
        begin_peak(device)
    assert called == ["cuda empty", "mps empty", "cuda empty", "cuda reset", "mps empty"]
