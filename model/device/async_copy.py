"""Asynchronous copies between a device and the CPU: nobody waits while they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Waits for a copy and returns it.
Copied = Callable[[], dict[str, Tensor]]


def begin_upload(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device; a GPU continues, and the host does not wait.

    The host would wait for all work of the GPU to copy from memory that is not pinned. On the CPU
    the tensor shares the memory of the array.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def begin_copy(rows: Mapping[str, Tensor]) -> Copied:
    """Start a copy of tensors of one device to the CPU.

    The caller may overwrite the originals at once: a GPU orders later writes after the copy.

    Args:
        rows: tensors by name.

    Returns:
        A function that waits for the copies and returns them. They share no memory with the
        originals. Any thread may call the function.

    Raises:
        RuntimeError: if there is no memory for the copies.
    """
    device = next(iter(rows.values())).device
    if device.type != "cuda":
        copies = {name: row.detach().to("cpu", copy=True) for name, row in rows.items()}
        return lambda: copies
    return _begin_on_gpu(rows, device)


def _begin_on_gpu(rows: Mapping[str, Tensor], device: torch.device) -> Copied:
    """Copy within the GPU first, which is fast, and from there to the CPU on a separate stream.

    If the GPU has no memory for the first copy, its work waits until the rows have left the GPU.
    """
    work = torch.cuda.current_stream(device)
    try:
        sources = {name: row.detach().clone() for name, row in rows.items()}
        stream = _copy_stream(device)
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
            source.record_stream(stream)  # the allocator keeps its memory until the copy ends
    # blocking: a waiting thread sleeps instead of spinning
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(stream)

    def copied() -> dict[str, Tensor]:
        done.synchronize()
        return copies

    return copied


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
