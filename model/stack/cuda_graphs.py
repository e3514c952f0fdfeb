"""CUDA graphs of ticks: what a GPU does in a tick, started by one call of the host.

A graph computes on the memory that it was captured with. What changes from tick to tick is copied
there, and what slots hold lies in the matrices of the stack: a refill leaves a graph valid.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from model.stack.plan import Tick

Result = tuple[Tensor, ...]
Compute = Callable[[Tick], Result]
# something to capture → what replays it, and where its results will be
Capture = Callable[[Callable[[], Result]], tuple[Callable[[], None], Result]]

_KEPT = 16  # kinds of ticks, each with a graph


class _Captured(NamedTuple):
    tick: Tick  # its inputs
    replay: Callable[[], None]
    result: Result


class Graphs:
    """Runs ticks, those of a kind that comes again as a graph.

    The first tick of a kind is run as it is, which also makes what a capture cannot; the second
    one is captured.

    Args:
        capture: how.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._known: dict[Hashable, _Captured | None] = {}

    def run(self, kind: Hashable, compute: Compute, tick: Tick) -> Result:
        """The results of a tick, which the next one may overwrite.

        Args:
            kind: ticks that are computed alike.
            compute: what to do with a tick, without asking the device.
            tick: its inputs.
        """
        if kind not in self._known:
            if len(self._known) == _KEPT:
                del self._known[next(iter(self._known))]
            self._known[kind] = None
            return compute(tick)
        captured = self._known[kind]
        if captured is None:
            own = tick.clone()
            captured = _Captured(own, *self._capture(lambda: compute(own)))
            self._known[kind] = captured
        captured.tick.copy_(tick)
        captured.replay()
        return captured.result


def capturing(device: torch.device) -> Capture:
    """Capture by torch; graphs of one stack share their memory, as no two run at one time."""
    pool, stream = torch.cuda.graph_pool_handle(), _stream(device)

    def capture(compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),  # again, even if a capture fails
            # threads that save states wait for their copies meanwhile: "global" forbids them that
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            result = compute()
        # what the run before has left would otherwise be held beside the graph's own memory
        torch.cuda.empty_cache()
        return graph.replay, result

    return capture


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures on a device: each has a workspace of cuBLAS."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
