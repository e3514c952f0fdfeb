"""CUDA graphs of ticks: all kernels of a tick, started by one call of the host.

A graph always computes on the memory of its capture. The numbers of a tick are copied into this
memory, and the weights of the slots stay in the matrices of the stack, so a refill of a slot
leaves a graph valid.
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
# function to capture → function that replays it, and the tensors of its results
Capture = Callable[[Callable[[], Result]], tuple[Callable[[], None], Result]]

_MAX_KINDS = 16  # kinds of ticks that keep a graph, the newest ones


class _Captured(NamedTuple):
    tick: Tick  # inputs
    replay: Callable[[], None]
    result: Result


class Graphs:
    """Runs ticks, as graphs from the second tick of a kind on.

    The first tick of a kind runs without a graph: it fills caches and workspaces, which a capture
    cannot do, and a kind that never returns costs no capture. The second one is captured.

    Args:
        capture: captures a function as a graph.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._known: dict[Hashable, _Captured | None] = {}

    def run(self, kind: Hashable, compute: Compute, tick: Tick) -> Result:
        """Run a tick.

        Args:
            kind: key of the ticks that run the same kernels.
            compute: function of a tick that never waits for the device.
            tick: inputs.

        Returns:
            Results of the tick; the next tick may overwrite them.
        """
        if kind not in self._known:
            if len(self._known) == _MAX_KINDS:
                del self._known[next(iter(self._known))]
            self._known[kind] = None
            return compute(tick)
        captured = self._known[kind]
        if captured is None:
            inputs = tick.clone()
            captured = _Captured(inputs, *self._capture(lambda: compute(inputs)))
            self._known[kind] = captured
        captured.tick.copy_(tick)
        captured.replay()
        return captured.result


def capturing(device: torch.device) -> Capture:
    """Return torch's capture; graphs of one stack share memory, since no two run at one time."""
    pool, stream = torch.cuda.graph_pool_handle(), _stream(device)

    def capture(compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),  # restored if a capture fails
            # threads that write checkpoints wait for their copies meanwhile, which the mode
            # "global" would forbid
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            result = compute()
        # the cached memory of the run before would otherwise stay beside the graph's own memory
        torch.cuda.empty_cache()
        return graph.replay, result

    return capture


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all captures on a device: each stream has a workspace of cuBLAS."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
