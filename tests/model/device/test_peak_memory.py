"""Predicted peaks of memory, beside the measured peaks of a process that trains."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from model.device.peak_memory import peak_memory
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.trial import TrialSpec
from tests.conftest import MakeSpec

FACTOR = 1.4
# name → entries of the architecture and hyperparameters, a peak each of 0.45 to 1.2 GB
SHAPES = {
    "small": ({"d_model": 64, "n_layers": 2}, {"batch_size": 8}),
    "many weights": ({"d_model": 448, "n_layers": 4}, {"batch_size": 4}),
    "many tokens": ({"d_model": 96, "n_layers": 6, "context_length": 512}, {"batch_size": 16}),
    "many ids": ({"vocab_size": 24_000, "d_model": 192, "n_layers": 1}, {"batch_size": 8}),
    "scores": (
        {"d_model": 64, "n_layers": 2, "n_heads": 4, "context_length": 384},
        {"batch_size": 8, "attention_dropout": 0.1},
    ),
}
# trains each shape in a process of its own, and prints its peaks
MEASURE = """
import os, resource, sys
import numpy as np, tempfile
from pathlib import Path
from model.engine.engine import Engine
from model.spec.trial import TrialSpec

for text in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    spec = TrialSpec.model_validate_json(text)
    ids = np.arange(64 * spec.architecture.context_length + 1) % spec.architecture.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        list(Engine(*[ids.astype(np.uint16)] * 2, slots=1, checkpoint_dir=Path(folder)).run([spec]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
    os._exit(0)
"""


def spec_of(model: dict[str, Any], rows: dict[str, Any]) -> TrialSpec:
    a = Architecture(**{"vocab_size": 512, "context_length": 64, **model})
    h = derive({"total_steps": 2, **rows}, train_sequences=64, context_length=a.context_length)
    return TrialSpec(
        hyperparameters=h, architecture=a, data=DataConfig(files=("made-up",)),
        tokenizer=TokenizerConfig(vocab_size=a.vocab_size), data_fingerprint="data",
        tokenizer_fingerprint="tokenizer", train_sequences=64, validation_sequences=8,
        micro_batch=h.batch_size, report_tokens=h.batch_size * a.context_length, seed=0,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sizes of processes on Linux")
def test_prediction_is_near_the_measured_peak() -> None:
    specs = {name: spec_of(*shape) for name, shape in SHAPES.items()}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True,
        input="".join(f"{spec.model_dump_json()}\n" for spec in specs.values()),
    )  # fmt: skip
    measured = dict(zip(specs, map(int, done.stdout.split()), strict=True))
    predicted = {name: peak_memory(spec).process for name, spec in specs.items()}
    ratios = {name: predicted[name] / measured[name] for name in specs}
    assert all(1 / FACTOR < ratio < FACTOR for ratio in ratios.values()), ratios
    assert max(measured.values()) > 2 * min(measured.values())  # so that this says something


def test_what_adds_memory_adds_to_the_prediction(make_spec: MakeSpec) -> None:
    plain = peak_memory(make_spec(micro_batch=4))
    state = 4 * make_spec().architecture.num_parameters
    assert plain.weights == 4 * state  # weights, two moments, gradients
    assert peak_memory(make_spec(micro_batch=2)).weights == 5 * state  # and their sums
    assert peak_memory(make_spec(micro_batch=2)).activations < plain.activations
    assert peak_memory(make_spec(micro_batch=4, ema_decay=0.9)).checkpoint > plain.checkpoint
    for more in (
        {"model": {"n_encoder_layers": 1}}, {"model": {"qk_norm": True}},
        {"model": {"position": "relative"}}, {"model": {"norm": "layernorm"}},
        {"attention_dropout": 0.1}, {"residual_dropout": 0.1}, {"model": {"context_length": 16}},
    ):  # fmt: skip
        assert peak_memory(make_spec(micro_batch=4, **more)).activations > plain.activations, more
