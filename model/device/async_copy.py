"""Copies from a device to the CPU that the device does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

Copied = Callable[[], dict[str, Tensor]]


def begin_copy(rows: Mapping[str, Tensor]) -> Copied:
    """Begin to copy tensors of one device to the CPU.

    The originals may be overwritten at once: on a GPU that is ordered after the copy.

    Args:
        rows: tensors by name.

    Returns:
        Waits for the copies, which share no memory with the originals, and returns them; any
        thread may call it.

    Raises:
        RuntimeError: if there is no memory for them.
    """
    device = next(iter(rows.values())).device
    if device.type != "cuda":
        copies = {name: row.detach().to("cpu", copy=True) for name, row in rows.items()}
        return lambda: copies
    return _begin_on_gpu(rows, device)


def _begin_on_gpu(rows: Mapping[str, Tensor], device: torch.device) -> Copied:
    """Within the GPU first, which is fast; from there a stream of its own feeds the slow bus.

    Where the GPU has no memory for that, its work waits until the bus has the rows.
    """
    work = torch.cuda.current_stream(device)
    try:
        sources, stream = {name: row.detach().clone() for name, row in rows.items()}, _bus(device)
        stream.wait_stream(work)
    except torch.OutOfMemoryError:
        sources, stream = {name: row.detach() for name, row in rows.items()}, work
    copies = {
        name: torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
        for name, row in sources.items()
    }
    with torch.cuda.stream(stream):
        for name, source in sources.items():
            copies[name].copy_(source, non_blocking=True)
            source.record_stream(stream)  # its memory is not used again before
    # who waits for it sleeps
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(stream)

    def copied() -> dict[str, Tensor]:
        done.synchronize()
        return copies

    return copied


@cache
def _bus(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
