"""How memory that has run out shows itself."""

from __future__ import annotations

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
