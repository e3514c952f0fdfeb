"""Measure how much faster a trial's ticks are with products in bfloat16, on one core.

    python -m model.engine.products < SPEC.json

A process of its own, because a driver imports no torch. It prints the gain.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from model.corpus.dataset import Dataset, TextDataset
from model.corpus.pairs import PairDataset
from model.device.memory import keep_freed
from model.device.precision import Precision
from model.engine.planner import plan_of
from model.engine.slot import TrialRequest, start_trial
from model.parallel import end_with_parent
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from model.stack.base import Base
from model.stack.stack import Stack

_SECONDS = 0.5
_LEAST_TURNS = 3


def gain_of_products(spec: TrialSpec, seconds: float = _SECONDS) -> float:
    """Return how many times as fast a trial's ticks are in mixed_bfloat16 as in float32.

    A tick and an update are timed in both by turns, in time of the processor. Nothing is compiled.

    Args:
        spec: specification of a trial.
        seconds: time for the measurement; ticks of a large model may take longer.
    """
    number = 2 * spec.micro_batch
    one_update = spec.hyperparameters.model_copy(update={"total_steps": 1})
    changes = {
        "init_from": None, "continues": None, "train_sequences": number,
        "hyperparameters": one_update,
    }  # fmt: skip
    spec = spec.model_copy(update=changes)
    data = _synthetic(spec.architecture, number)
    sides = [_tick(spec, data, name) for name in ("float32", "mixed_bfloat16")]
    for tick in sides:
        tick()  # warms up
    gains: list[float] = []
    end = time.perf_counter() + seconds
    while len(gains) < _LEAST_TURNS or time.perf_counter() < end:
        exact, mixed = (tick() for tick in sides)
        gains.append(exact / mixed)
    return statistics.median(gains)


def _tick(spec: TrialSpec, data: Dataset, dtype: str) -> Callable[[], float]:
    """Return a function that runs a tick with an update, and returns its seconds."""
    cpu, a = torch.device("cpu"), spec.architecture
    precision = Precision.of(dtype, cpu)
    stack = Stack(a, 1, cpu, precision, base=Base.random(a, cpu, precision))
    stack.load(0, spec.seed, averaged=spec.hyperparameters.ema_decay > 0, scale=spec.lora_scale)
    slot = start_trial(TrialRequest("0", spec), None, None)[0]
    slot.tick = slot.ticks_per_step - 1
    plan = plan_of([slot], spec.architecture, spec.micro_batch, data)

    def tick() -> float:
        started = time.thread_time()
        stack.run(plan)()
        return time.thread_time() - started

    return tick


def _synthetic(a: Architecture, number: int) -> Dataset:
    """Return random sequences, or pairs for an encoder–decoder, of full length."""
    rng = np.random.default_rng(0)
    if not a.n_encoder_layers:
        return TextDataset(
            rng.integers(a.vocab_size, size=number * a.context_length + 1, dtype=np.uint32)
        )
    lengths = np.tile([a.source_length, a.context_length], number)
    tokens, ends = rng.integers(a.vocab_size, size=lengths.sum()), lengths.cumsum()
    tokens[tokens == a.end_of_text] = (a.end_of_text + 1) % a.vocab_size
    tokens[ends - 1] = a.end_of_text
    return PairDataset(tokens, ends, a.end_of_text)


if __name__ == "__main__":
    end_with_parent()
    torch.set_num_threads(1)
    keep_freed()
    gain = gain_of_products(TrialSpec.model_validate_json(sys.stdin.read()))
    sys.stdout.write(f"{gain}\n")
