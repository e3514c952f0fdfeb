"""Memory of a device: free and used bytes, and recognition of out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Callable

import torch

# Messages of PyTorch's CPU allocator and CUDA's libraries, in errors without a class of their own.
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that a device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def oom_reason(work: Callable[[], None]) -> str | None:
    """Do some work; return the device's message if memory ran out, otherwise None.

    Callers recover only after this function has returned: the traceback of an error keeps the
    tensors of its frames alive, and with them the memory that the recovery needs.
    """
    try:
        work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return str(error)
    return None


def give_back(device: torch.device) -> None:
    """Release the GPU memory that PyTorch caches but does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_bytes(device: torch.device) -> float:
    """Return the memory of a device that this process could use; infinite if not measurable."""
    give_back(device)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory())
    return math.inf


def begin_peak(device: torch.device) -> None:
    """Reset the measurement of peak memory."""
    give_back(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> float:
    """Return the peak memory since `begin_peak`; 0 if not measurable."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    if device.type == "mps":
        # The allocator keeps freed memory, so that the current value is the peak.
        return float(torch.mps.driver_allocated_memory())
    return 0.0


# Names and values from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**30  # bytes


def keep_freed() -> None:
    """Make the C library of this process keep freed memory.

    Each tick frees and allocates the same large blocks. Returned to Linux each time, their pages
    would be cleared and mapped again, some hundreds of pages a tick.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_TRIM_THRESHOLD, _NEVER)
            mallopt(_MMAP_THRESHOLD, _NEVER)
