"""In which numbers a stack computes; its weights, moments and sums of gradients are float32."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import torch

# name → the type of activations, and of the copy of the weights that they are multiplied with
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """How a device computes.

    Attributes:
        name: one of `DTYPES`; tf32 is float32 whose matrix products a GPU may round to 10 bits of
            mantissa.
    """

    name: str = "float32"

    @classmethod
    def of(cls, name: str, device: torch.device) -> Self:
        """What a name stands for on a device.

        Raises:
            ValueError: if there is no such name, or the device does not compute in it.
        """
        if name not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name}")
        if name == "tf32" and device.type != "cuda":
            raise ValueError(f"tf32 is what GPUs of NVIDIA compute in, and the device is {device}")
        return cls(name)

    @property
    def compute(self) -> torch.dtype:
        """Of activations."""
        return DTYPES[self.name]

    def set_up(self, device: torch.device) -> None:
        """Tell torch how this process multiplies matrices of float32, and to do it repeatably.

        To be called before anything is computed on a GPU: what cuBLAS may use it reads once.
        """
        if device.type == "cpu":
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # not only with warnings: attention takes its repeatable kernels in no other mode
        torch.use_deterministic_algorithms(True)
        # nothing reads what has not been written
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if self.name == "tf32" else "ieee"


def exact_device(device: torch.device) -> torch.device:
    """Where to compute in float64 for a device: there, but for GPUs of Apple, which cannot."""
    return torch.device("cpu") if device.type == "mps" else device
