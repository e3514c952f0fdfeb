"""The devices that a search trains on: how many, of which kind, with how many slots."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from tuner.errors import TunerError
from tuner.space.space import SearchSpace

_CPU_SLOTS = 1  # two would each take twice as long, so that early stopping knew less


_GPU_SLOTS = 8


@dataclass(frozen=True)
class Devices:
    """On what a search trains.

    Attributes:
        kind: "cpu", "cuda" or "mps".
        number: of workers.
        slots: trials that each of them trains at one time.
        dtype: in which they compute; "auto" leaves that to them.
        is_open: whether `slots` is only a guess, and the device could be asked.
    """

    kind: str
    number: int
    slots: int
    dtype: str = "auto"
    is_open: bool = False


def devices(space: SearchSpace) -> Devices:
    """What a space asks for, once Ray has told what there is.

    Raises:
        TunerError: if the space wants GPUs that are not there, or what no other device can.
    """
    engine, gpus = space.engine, _gpus()
    kind = engine.device
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if _has_mps() else "cpu"
    if kind == "cuda" and not gpus:
        raise TunerError("engine.device is cuda, but there is no GPU here; use auto or cpu")
    if kind == "mps" and not _has_mps():
        raise TunerError("engine.device is mps, but this is no Mac that has it; use auto or cpu")
    if engine.dtype == "tf32" and kind != "cuda":
        raise TunerError(
            f"only GPUs of NVIDIA compute in tf32, and engine.device comes to {kind} here; use "
            f"auto or float32 as engine.dtype"
        )
    there = {"cuda": gpus, "mps": 1, "cpu": _cores()}[kind]
    number = engine.workers or there
    if kind != "cpu" and number > there:
        raise TunerError(f"engine.workers is {number}, but there are only {there} GPUs")
    if kind == "cpu":
        return Devices(kind, number, engine.slots or _CPU_SLOTS, engine.dtype)
    return Devices(kind, number, engine.slots or _GPU_SLOTS, engine.dtype, engine.slots is None)


def _gpus() -> int:
    """GPUs that Ray has found."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))


def _has_mps() -> bool:
    """Whether this Mac has a GPU that PyTorch can use, which Ray does not count."""
    if sys.platform != "darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
