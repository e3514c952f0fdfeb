"""What a trial's bits depend on beside its specification: the device and the libraries."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import torch


def environment(device: str) -> dict[str, str]:
    """Device and versions; two runs of one specification are bit-equal where these are equal.

    Args:
        device: "cpu", "cuda" …

    Returns:
        device, dtype, torch, numpy, python and sacrebleu, as texts.
    """
    return {
        "device": _device_name(torch.device(device)),
        "dtype": "float32",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "sacrebleu": metadata.version("sacrebleu"),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"cpu: {_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    """The processor's name; where the system does not tell, its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
