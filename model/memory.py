"""How memory that has run out shows itself."""

from __future__ import annotations

import contextlib
import ctypes
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
