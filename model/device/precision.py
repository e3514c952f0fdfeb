"""Precision of a stack's computation; weights, moments and gradient sums are always float32."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import torch

# name → dtype of the activations, and of the copy of the weights that multiplies them
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "mixed_bfloat16": torch.float32,
}
# name → dtype of the operands of linear layers and head, where it differs
PRODUCTS = {"mixed_bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """Precision in which a device computes.

    Attributes:
        name: a name in `DTYPES`; tf32 is float32 with matrix products that a GPU may round to 10
            bits of mantissa; mixed_bfloat16 is float32 with linear layers and a head whose
            products a CPU computes in bfloat16, with float32 sums.
    """

    name: str = "float32"

    @classmethod
    def of(cls, name: str, device: torch.device) -> Self:
        """Check that a device computes in a precision, and return the precision.

        Raises:
            ValueError: if there is no such name, or the device does not compute in it.
        """
        if name not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name}")
        if name == "tf32" and device.type != "cuda":
            raise ValueError(f"only GPUs of NVIDIA compute in tf32, and the device is {device}")
        if name in PRODUCTS and device.type != "cpu":
            raise ValueError(f"only CPUs compute in {name}, and the device is {device}")
        return cls(name)

    @property
    def compute(self) -> torch.dtype:
        """Dtype of activations."""
        return DTYPES[self.name]

    @property
    def products(self) -> torch.dtype | None:
        """Dtype to which linear layers and head convert their operands; None for no conversion."""
        return PRODUCTS.get(self.name)

    def set_up(self, device: torch.device) -> None:
        """Set torch's precision of float32 matrix products, and its deterministic mode.

        Call this before any computation on a GPU: cuBLAS reads its workspace setting once.
        """
        if device.type == "cpu":
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not with warn_only: attention chooses its deterministic kernels in this mode only.
        torch.use_deterministic_algorithms(True)
        # Filling uninitialised memory costs time, and no code reads memory before writing it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if self.name == "tf32" else "ieee"


def exact_device(device: torch.device) -> torch.device:
    """Return the device for float64 work: the device itself, or the CPU for an Apple GPU."""
    return torch.device("cpu") if device.type == "mps" else device
