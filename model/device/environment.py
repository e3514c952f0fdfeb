"""What a trial's bits depend on beside its specification: the device and the libraries."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

# Of model/: raised with every change after which a trial's last bits may be others.
TRAINER = "2"


def environment(device: str, dtype: str = "float32", width: int = 1) -> dict[str, str]:
    """Device, dtype and versions; runs of one specification are bit-equal where these are equal.

    Args:
        device: "cpu", "cuda", "mps" …
        dtype: in which it computes.
        width: slots of its stacks. On a CPU no bit depends on it, and it is left out. Which slot a
            trial is in never matters; but the libraries of a GPU choose kernels by the sizes of
            what they are given, and promise nothing between different ones.

    Returns:
        device, dtype, width, trainer, torch, numpy, python and sacrebleu, as texts.
    """
    return {
        "device": _device_name(torch.device(device)),
        "dtype": dtype,
        "width": "any" if torch.device(device).type == "cpu" else str(width),
        "trainer": TRAINER,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "sacrebleu": metadata.version("sacrebleu"),
    }


def computing_dtype(asked: str, device: str) -> str:
    """In which dtype a device computes, if that is left to it.

    Args:
        asked: one of `precision.DTYPES`, or "auto": bfloat16 on a GPU that computes in it, float32
            elsewhere.
        device: "cpu", "cuda", "mps" …

    Returns:
        One of `precision.DTYPES`.
    """
    if asked != "auto":
        return asked
    if torch.device(device).type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    if device.type == "mps":
        return f"mps: {_processor()}, macOS {platform.mac_ver()[0]}"
    return f"cpu: {_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    """The processor's name; where the system does not tell, its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
