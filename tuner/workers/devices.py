"""Devices that a search trains on: kind, number, and slots of each."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace

from model.device.compiler import check_compiler
from model.device.processor import machine_memory
from model.errors import CompileError
from tuner.errors import TunerError
from tuner.space.space import SearchSpace
from tuner.workers.nodes import live_nodes

_CPU_SLOTS = 1  # two slots would each take twice as long, so early stopping would see less
_GPU_SLOTS = 8  # until the device is measured


@dataclass(frozen=True)
class Devices:
    """Devices of a search; each has one worker.

    Attributes:
        kind: "cpu", "cuda" or "mps".
        number: number of workers.
        slots: number of trials that each worker trains at one time.
        dtype: dtype in which the workers compute; "auto" lets each worker choose.
        is_compiled: True if the ticks are compiled.
        needs_calibration: True if `slots` is a guess that a measurement should replace.
        is_cluster: True if they belong to the nodes of a Ray cluster of the user's.
    """

    kind: str
    number: int
    slots: int
    dtype: str = "auto"
    needs_calibration: bool = False
    is_compiled: bool = False
    is_cluster: bool = False

    @property
    def trial_bytes(self) -> int:
        """Memory of this machine for each trial in training; 0 on GPUs and clusters: unknown."""
        if self.kind != "cpu" or self.is_cluster:
            return 0
        return machine_memory() // (self.number * self.slots)


def check_devices(space: SearchSpace) -> None:
    """Check that this machine has the devices that a space names, before a local Ray starts.

    Raises:
        TunerError: as `find_devices`.
    """
    engine = space.engine
    if engine.compile == "on":
        check_compilation(engine.device)
    is_gpu = engine.device in {"cuda", "mps"}
    may_be_wrong = engine.dtype == "mixed_bfloat16" and engine.device != "cpu"
    if is_gpu or engine.dtype == "tf32" or may_be_wrong:  # else torch is not needed
        _choose_devices(space, _num_cuda_devices())


def find_devices(space: SearchSpace, *, is_cluster: bool = False) -> Devices:
    """Return the devices that a space asks for; Ray must have been started.

    Args:
        space: search space.
        is_cluster: True if Ray is a cluster of the user's.

    Raises:
        TunerError: if the machine does not have them, or they cannot compute in the dtype.
    """
    if not is_cluster:
        return _choose_devices(space, _num_gpus())
    nodes = live_nodes()
    gpus, cores = sum(node.gpus for node in nodes), sum(node.cores for node in nodes)
    return replace(_choose_devices(space, gpus, max(1, cores)), is_cluster=True)


def _choose_devices(space: SearchSpace, gpus: int, cores: int | None = None) -> Devices:
    """Return the devices that a space asks for.

    Args:
        space: search space.
        gpus: number of GPUs.
        cores: number of cores of a cluster, which may get more of both; None for this machine.
    """
    engine, kind = space.engine, space.engine.device
    where = "this machine" if cores is None else "the cluster"
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if cores is None and _has_mps() else "cpu"
    if kind == "cuda" and not gpus and not (cores and engine.workers):
        hint = "" if cores is None else "; with engine.workers a search waits for GPUs that come"
        raise TunerError(
            f"engine.device is cuda, but {where} has no GPU that can be used; use auto or cpu{hint}"
        )
    if kind == "mps" and (cores or not _has_mps()):
        raise TunerError(
            f"engine.device is mps, but {where} is no Mac with a GPU that PyTorch can use; use "
            f"auto or cpu"
        )
    if engine.dtype == "tf32" and kind != "cuda":
        raise TunerError(
            f"only NVIDIA GPUs compute in tf32, but the device of this search is {kind}; use auto "
            f"or float32 as engine.dtype"
        )
    if engine.dtype == "mixed_bfloat16" and kind != "cpu":
        raise TunerError(
            f"only CPUs compute in mixed_bfloat16, but the device of this search is {kind}; use "
            f"auto or bfloat16 as engine.dtype, or cpu as engine.device"
        )
    available = {"cuda": gpus, "mps": 1, "cpu": cores or num_cores()}[kind]
    number = engine.workers or available
    if kind != "cpu" and number > available and cores is None:
        raise TunerError(f"engine.workers is {number}, but this machine has only {available} GPUs")
    if kind == "cpu":
        return Devices(kind, number, engine.slots or _CPU_SLOTS, engine.dtype)
    return Devices(kind, number, engine.slots or _GPU_SLOTS, engine.dtype, engine.slots is None)


def check_compilation(kind: str) -> None:
    """Check that ticks can be compiled on a kind of device, as `engine.compile: on` asks.

    Raises:
        TunerError: if they cannot.
    """
    if kind not in {"cpu", "auto"}:
        raise TunerError(
            f"engine.compile is on, but ticks are compiled on a CPU only, and the device of this "
            f"search is {kind}; use auto or off"
        )
    if (reason := why_not_compiled()) is not None:
        raise TunerError(f"engine.compile is on, but {reason}; or use auto or off")


def why_not_compiled() -> str | None:
    """Return why this machine cannot compile ticks; None if it can."""
    try:
        check_compiler()
    except CompileError as error:
        return str(error)
    return None


def has_nvidia_gpu() -> bool:
    """Return True if the driver of NVIDIA finds a GPU."""
    return num_nvidia_gpus() > 0


def num_nvidia_gpus() -> int:
    """Return the number of GPUs that the driver of NVIDIA finds; needs neither Ray nor torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def _num_gpus() -> int:
    """Return the number of GPUs that Ray has found."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))


def _num_cuda_devices() -> int:
    """Return the number of GPUs that PyTorch finds."""
    import torch

    return torch.cuda.device_count()


def _has_mps() -> bool:
    """Return True if this Mac has a GPU that PyTorch can use; Ray does not count it."""
    if sys.platform != "darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
