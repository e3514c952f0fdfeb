"""The memory of a device: how much there is, and how it shows that it has run out."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys

import torch

# What PyTorch's CPU allocator and CUDA's libraries say, in errors that have no class of their own.
_SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAYINGS)


def give_back(device: torch.device) -> None:
    """Return to a GPU what PyTorch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_bytes(device: torch.device) -> float:
    """What this process has or could have of a device's memory; infinite if it is not measured."""
    give_back(device)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory())
    return math.inf


def begin_peak(device: torch.device) -> None:
    """Begin to look for the most memory that is used."""
    give_back(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> float:
    """The most memory that was used since; 0 where it is not measured."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory())  # what was used is kept for later
    return 0.0


# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**30  # bytes


def keep_freed() -> None:
    """Have the C library keep what is freed, for this process.

    A tick frees and takes the same large pieces again and again; given back to Linux each time,
    their pages would be cleared and mapped anew, some hundreds of them a tick.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_TRIM_THRESHOLD, _NEVER)
            mallopt(_MMAP_THRESHOLD, _NEVER)
