"""Calibration: how many trials a device should train side by side, measured once and cached.

The wider a stack, the better it fills a GPU, until the GPU is full: a wider stack then only needs
more memory. This width depends on the device, the dtype, the architecture and the micro-batch.

K = slots in a stack, Q = ticks of a quantum, b = sequences of a micro-batch, T = tokens.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from model.corpus.dataset import Dataset
from model.corpus.device_dataset import DeviceDataset
from model.device.environment import environment
from model.device.memory import begin_peak, free_bytes, is_out_of_memory, peak_bytes
from model.device.precision import Precision
from model.engine.measurements import add_measurement, key_of, read_measurements
from model.engine.planner import QUANTUM_TICKS, plan_of
from model.engine.slot import TrialRequest, start_trial
from model.spec.trial import TrialSpec
from model.stack.base import Base
from model.stack.stack import Stack

_NUM_QUANTA = 3  # measured quanta, after one to warm up
_MIN_GAIN = 0.1  # least gain in tokens per second of a stack twice as wide
_MARGIN = 0.15  # share of the memory that stays free: validation, other shapes, the allocator
_MAX_WIDTH = 1024


class Measurement(NamedTuple):
    """Speed and memory of a stack of some width.

    Attributes:
        speed: training tokens per second of all slots together.
        peak_bytes: peak of the device's memory; 0 on devices that do not measure it.
    """

    speed: float
    peak_bytes: float


Meter = Callable[[int], Measurement]  # width → measurement


class Setup(NamedTuple):
    """Data, device and precision with which trials train.

    Attributes:
        train: training data.
        device: device of the stacks.
        precision: precision of the computation.
        data: training data on the device, if it has them.
    """

    train: Dataset
    device: torch.device
    precision: Precision
    data: DeviceDataset | None = None


def slots_for(spec: TrialSpec, setup: Setup, file: Path) -> int:
    """Return the number of slots of a stack for trials like `spec`, cached or measured.

    Args:
        spec: specification of a typical trial.
        setup: data, device and precision.
        file: cache of measurements; a damaged file is replaced.
    """
    facts = {
        **environment(str(setup.device), setup.precision.name),
        "architecture": spec.architecture.model_dump(mode="json"),
        "micro_batch": spec.micro_batch,
    }
    names = ("device", "dtype", "torch", "architecture", "micro_batch")
    facts = {name: facts[name] for name in names}
    key = key_of(facts)
    slots = read_measurements(file).get(key, {}).get("slots")
    if isinstance(slots, int) and 1 <= slots <= _MAX_WIDTH:
        return slots
    slots = widest_stack(stack_meter(spec, setup), free_bytes(setup.device))
    add_measurement(file, key, {"slots": slots, **facts})
    return slots


def widest_stack(meter: Meter, memory_bytes: float) -> int:
    """Return the widest stack that fits into memory and is still worth its width.

    Doubles the width while the speed grows, then takes the width that should just fit.

    Args:
        meter: measures a width; it may run out of memory.
        memory_bytes: memory that a stack may use, including the margin that stays free.
    """
    limit, measured = (1 - _MARGIN) * memory_bytes, dict[int, Measurement]()
    width = 1
    while True:
        new = _measure(meter, width)
        if new is None or new.peak_bytes > limit or not _gains(measured, width, new.speed):
            return max(measured, default=1)
        measured[width] = new
        next_width = min(2 * width, _fitting_width(measured, limit), _MAX_WIDTH)
        if next_width <= width:
            return width
        width = next_width


def _measure(meter: Meter, width: int) -> Measurement | None:
    """Measure a width; return None if memory runs out."""
    try:
        return meter(width)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _gains(measured: Mapping[int, Measurement], width: int, speed: float) -> bool:
    """True if a stack is enough faster than the widest one before it."""
    if not measured:
        return True
    before = max(measured)
    return speed >= (1 + _MIN_GAIN * (width / before - 1)) * measured[before].speed


def _fitting_width(measured: Mapping[int, Measurement], limit: float) -> int:
    """Return the width that should fit if each further slot needs as much memory as the last."""
    if len(measured) == 1 or math.isinf(limit):
        return _MAX_WIDTH
    before, last = sorted(measured)[-2:]
    each = (measured[last].peak_bytes - measured[before].peak_bytes) / (last - before)
    room = limit - measured[last].peak_bytes
    return last + math.floor(min(room / each, _MAX_WIDTH)) if each > 0 else _MAX_WIDTH


def stack_meter(spec: TrialSpec, setup: Setup) -> Meter:
    """Return a meter of stacks in which every slot trains `spec`, as in the engine.

    Args:
        spec: specification to train; a warm start or an earlier trial of it is ignored.
        setup: data, device and precision.
    """
    spec = spec.model_copy(update={"init_from": None, "continues": None})
    a, b = spec.architecture, spec.micro_batch
    averaged = spec.hyperparameters.ema_decay > 0

    def measure(width: int) -> Measurement:
        gc.collect()  # frees the memory of earlier stacks
        begin_peak(setup.device)
        base = Base.random(a, setup.device, setup.precision)
        stack = Stack(
            a, width, setup.device, setup.precision, data=setup.data,
            masks_targets=spec.data.examples, base=base,
        )  # fmt: skip
        slots = [start_trial(TrialRequest(str(row), spec), None, None)[0] for row in range(width)]
        for row, slot in enumerate(slots):
            slot.tick = max(0, slot.ticks_per_step - QUANTUM_TICKS)  # each quantum has an update
            stack.load(row, spec.seed, averaged=averaged, scale=spec.lora_scale)
        seconds, tokens = [], 0
        for _ in range(1 + _NUM_QUANTA):
            started = time.perf_counter()
            plan = plan_of(slots, a, b, setup.train, is_data_on_device=setup.data is not None)
            losses = stack.run(plan)().losses  # (Q, K), on the CPU: the device is done
            seconds.append(time.perf_counter() - started)
            tokens = losses.size * b * a.context_length
        # Ticks of another kind need their own memory, at first, beside the memory that the CUDA
        # graphs of this kind keep: this run belongs to the peak.
        z_loss = np.where(plan.z_loss > 0, 0.0, 1e-4)
        stack.run(replace(plan, z_loss=z_loss))()
        return Measurement(tokens / statistics.median(seconds[1:]), peak_bytes(setup.device))

    return measure
