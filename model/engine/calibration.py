"""How many trials a device should train side by side: measured once, and remembered.

The wider a stack, the better it fills a GPU, until the GPU is full: then it only needs more
memory. Where that is depends on the device, the dtype, the architecture and the micro-batch.

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from model.corpus.dataset import Dataset
from model.corpus.device_dataset import DeviceDataset
from model.device.environment import environment
from model.device.memory import begin_peak, free_bytes, is_out_of_memory, peak_bytes
from model.device.precision import Precision
from model.engine.planner import QUANTUM_TICKS, plan_of
from model.engine.slot import TrialRequest, start_trial
from model.spec.trial import TrialSpec
from model.stack.stack import Stack

_QUANTA = 3  # that are measured, after one to warm up
_LEAST_GAIN = 0.1  # in tokens per second, of a stack twice as wide
_MARGIN = 0.15  # of the memory that stays free: validation, other shapes, the allocator
_MOST = 1024


class Measured(NamedTuple):
    """What a stack of some width does.

    Attributes:
        speed: training tokens per second of all slots together.
        peak_bytes: of the device's memory; 0 where it is not measured.
    """

    speed: float
    peak_bytes: float


Meter = Callable[[int], Measured]


class Setup(NamedTuple):
    """On what trials train, and how.

    Attributes:
        train: what they read.
        device: where.
        precision: in which it computes.
        data: what they read, if it lies on the device.
    """

    train: Dataset
    device: torch.device
    precision: Precision
    data: DeviceDataset | None = None


def slots_for(spec: TrialSpec, on: Setup, file: Path) -> int:
    """The slots of a stack for trials like one, as remembered or measured.

    Args:
        spec: the trial.
        on: where it trains.
        file: of what was measured before; a damaged one is written anew.
    """
    about = {
        **environment(str(on.device), on.precision.name),
        "architecture": spec.architecture.model_dump(mode="json"),
        "micro_batch": spec.micro_batch,
    }
    needed = ("device", "dtype", "torch", "architecture", "micro_batch")
    about = {name: about[name] for name in needed}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    slots = _remembered(file).get(key, {}).get("slots")
    if isinstance(slots, int) and 1 <= slots <= _MOST:
        return slots
    slots = widest(stack_meter(spec, on), free_bytes(on.device))
    _remember(file, key, {"slots": slots, **about})
    return slots


def widest(meter: Meter, memory_bytes: float) -> int:
    """The widest stack that fits into memory and still gains.

    Args:
        meter: measures a width; it may run out of memory.
        memory_bytes: that stacks may fill, but for a margin.
    """
    limit, known = (1 - _MARGIN) * memory_bytes, dict[int, Measured]()
    width = 1
    while True:
        found = _measure(meter, width)
        if found is None or found.peak_bytes > limit or not _gains(known, width, found.speed):
            return max(known, default=1)
        known[width] = found
        following = min(2 * width, _fitting(known, limit), _MOST)
        if following <= width:
            return width
        width = following


def _measure(meter: Meter, width: int) -> Measured | None:
    """None if memory runs out."""
    try:
        return meter(width)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _gains(known: Mapping[int, Measured], width: int, speed: float) -> bool:
    """Whether a stack is enough faster than the widest one before it."""
    if not known:
        return True
    before = max(known)
    return speed >= (1 + _LEAST_GAIN * (width / before - 1)) * known[before].speed


def _fitting(known: Mapping[int, Measured], limit: float) -> int:
    """The width that should fit if memory goes on growing by as much for each slot."""
    if len(known) == 1 or math.isinf(limit):
        return _MOST
    before, last = sorted(known)[-2:]
    each = (known[last].peak_bytes - known[before].peak_bytes) / (last - before)
    room = limit - known[last].peak_bytes
    return last + math.floor(min(room / each, _MOST)) if each > 0 else _MOST


def stack_meter(spec: TrialSpec, on: Setup) -> Meter:
    """Measures stacks in which every slot trains one trial, as the engine does it.

    Args:
        spec: the trial; where it starts does not matter.
        on: where it trains.
    """
    spec = spec.model_copy(update={"init_from": None, "continues": None})
    a, b = spec.architecture, spec.micro_batch
    averaged = spec.hyperparameters.ema_decay > 0
    is_read_there = on.data is not None

    def measure(width: int) -> Measured:
        gc.collect()  # what an earlier stack had
        begin_peak(on.device)
        stack = Stack(a, width, on.device, on.precision, data=on.data)
        slots = [start_trial(TrialRequest(str(row), spec), None, None)[0] for row in range(width)]
        for row, slot in enumerate(slots):
            slot.tick = max(0, slot.ticks_per_step - QUANTUM_TICKS)  # each quantum has an update
            stack.load(row, spec.seed, averaged=averaged)
        seconds, tokens = [], 0
        for _ in range(1 + _QUANTA):
            began = time.perf_counter()
            plan = plan_of(slots, a, b, on.train, is_read_there=is_read_there)
            losses, _norms = stack.run(plan)()  # (Q, K), read back: the device is done
            seconds.append(time.perf_counter() - began)
            tokens = losses.size * b * a.context_length
        # ticks of another kind first run beside the memory that the graphs of these hold
        z_loss = np.where(plan.z_loss > 0, 0.0, 1e-4)
        stack.run(replace(plan, z_loss=z_loss))()
        return Measured(tokens / statistics.median(seconds[1:]), peak_bytes(on.device))

    return measure


# memory of what was measured ----------------------------------------------------------------


def _remembered(file: Path) -> dict[str, dict[str, Any]]:
    """What was measured before; nothing if that cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def _remember(file: Path, key: str, value: Mapping[str, Any]) -> None:
    """Add to the file at once; where that cannot be written, it is measured again next time."""
    text = json.dumps({**_remembered(file), key: value}, indent=1, sort_keys=True)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(temporary).replace(file)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
