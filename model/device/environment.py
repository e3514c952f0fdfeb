"""Environment that a trial's bits depend on in addition to its specification."""

from __future__ import annotations

import platform
from importlib import metadata

import numpy as np
import torch

from model.device.processor import processor_name

# Version of the arithmetic in model/: raised with every change that may change a trial's last bits.
TRAINER = "2"


NOT_COMPILED = "no"  # entry "compiled" of an environment whose ticks run operation by operation


def environment(
    device: str, dtype: str = "float32", width: int = 1, compiled: str = NOT_COMPILED
) -> dict[str, str]:
    """Describe device, dtype and versions; equal descriptions give bit-equal runs of one spec.

    Args:
        device: "cpu", "cuda", "mps" …
        dtype: of the computation, a name in `DTYPES`.
        width: slots of the stacks. On a CPU no bit depends on the width, so that it is "any". The
            slot of a trial never matters; but the libraries of a GPU choose kernels by the sizes
            of their arguments, and different kernels may round differently.
        compiled: version of the compiler that compiled the ticks.

    Returns:
        Texts by name: device, dtype, width, compiled, trainer, torch, numpy, python and sacrebleu.
    """
    return {
        "device": _device_name(torch.device(device)),
        "dtype": dtype,
        "width": "any" if torch.device(device).type == "cpu" else str(width),
        "compiled": compiled,
        "trainer": TRAINER,
        "torch": str(torch.__version__),  # a plain text: to unpickle its own type imports torch
        "numpy": np.__version__,
        "python": platform.python_version(),
        "sacrebleu": _version_of("sacrebleu"),
    }


def _version_of(distribution: str) -> str:
    """Return the version of a distribution that a machine that only measures may lack."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def computing_dtype(setting: str, device: str) -> str:
    """Resolve the dtype setting of a device.

    Args:
        setting: a name in `precision.DTYPES`; or "auto" for bfloat16 on a GPU that has it, and
            float32 elsewhere. (On a CPU, what a driver has measured replaces "auto".)
        device: "cpu", "cuda", "mps" …

    Returns:
        A name in `precision.DTYPES`.
    """
    if setting != "auto":
        return setting
    if torch.device(device).type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    if device.type == "mps":
        return f"mps: {processor_name()}, macOS {platform.mac_ver()[0]}"
    return f"cpu: {processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
