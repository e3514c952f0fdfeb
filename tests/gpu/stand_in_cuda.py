"""What takes the place of torch.cuda on the stand-in for a GPU: streams, events, graphs, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from model.device import async_copy
from model.stack import cuda_graphs
from tests.gpu.stand_in import GPU, StandIn, WithIndex


class Stream:
    """A stream. Work on another one than the first waits until somebody waits for it."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device, self.cuda_stream = GPU, id(self)
        self.delayed: list[Callable[[], Any]] = []
        self.operations = 0  # done without delay
        self.seen = -1  # operations of the first stream before the work of this one

    def finish(self, number: int | None = None) -> None:
        """Do the delayed work, or the first parts of it."""
        for work in self.delayed[:number]:
            work()
        del self.delayed[:number]

    def wait_stream(self, other: Stream) -> None:
        """Nothing is delayed on the first stream, and no other one is waited for."""
        assert not other.delayed
        self.seen = other.operations

    def synchronize(self) -> None:
        raise NotImplementedError


class Event:
    """An event of a stream."""

    def __init__(self, **_: Any) -> None:
        self.stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.stream = stream
        self._number = len(stream.delayed)

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.finish(self._number)
            self.stream = None


def _cuda(gpu: StandIn) -> dict[str, Any]:
    """Return what takes the place of functions of torch.cuda."""

    class Graph:
        def capture_begin(self, pool: Any = None, *, capture_error_mode: str, **_: Any) -> None:
            assert capture_error_mode == "thread_local"
            gpu.begin_capture()

        def capture_end(self) -> None:
            self.steps = gpu.end_capture()

        def replay(self) -> None:
            gpu.replay(self.steps)

    def set_stream(stream: Stream) -> None:
        gpu.stream = stream

    free = 2**34
    return {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "_exchange_device": lambda _: 0,
        "_maybe_exchange_device": lambda _: 0,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "current_stream": lambda device=None: gpu.stream,
        "set_stream": set_stream,
        "graph_pool_handle": lambda: (0, 1),
        "synchronize": lambda device=None: gpu.wait("synchronize"),
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (free, free),
        "memory_reserved": lambda device=None: 0,
        "max_memory_reserved": lambda device=None: 2**20,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_device_name": lambda device=None: "stand-in",
        "is_bf16_supported": lambda including_emulation=True: True,
    }


@contextmanager
def stand_in_for_a_gpu() -> Iterator[StandIn]:
    """Let this thread train on a stand-in for a GPU."""
    gpu = StandIn(Stream())
    caches = async_copy._copy_stream, cuda_graphs._stream
    before = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        for name, function in _cuda(gpu).items():
            assert hasattr(torch.cuda, name), name
            patch.setattr(torch.cuda, name, function)
        patch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        for each in caches:
            each.cache_clear()
        # torch.tensor(list, device="cuda") then copies where this mode sees the copy
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with gpu, WithIndex():
                yield gpu
        finally:
            torch.use_deterministic_algorithms(False)
            torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
            torch.backends.cuda.matmul.fp32_precision = "none"
            torch._C._set_only_lift_cpu_tensors(before)
            for each in caches:
                each.cache_clear()
