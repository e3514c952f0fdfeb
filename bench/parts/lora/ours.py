"""LoRA trials of ours in one process: `python -m parts.lora.ours FOLDER SIZE TRIALS TICKS DTYPE`.

Prints tokens, seconds of the processor and of the wall and the last losses as JSON, without the
first ticks; and the peak memory of a GPU.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from model.checkpoints import checkpoint
from model.checkpoints.warm_start import write_start
from model.device.memory import begin_peak, peak_bytes
from model.engine.engine import Engine
from model.exchange.pretrained import Pretrained
from model.spec.architecture import Architecture
from model.spec.trial import InitFrom
from parts.lora.setting import ALPHA, RANK, RATE, SIZES, VOCAB, WARM_UP
from parts.synthetic import trial


def main(
    folder: Path, size: str, trials: int, ticks: int, dtype: str, device: str = "cpu"
) -> dict[str, object]:
    """Train some trials for some ticks each, and return what it took."""
    model, batch = SIZES[size]
    starts = folder / "starts"
    weights = {f"weights.{n}": w for n, w in Pretrained.open(folder).weights().items()}
    start = InitFrom(sha256=checkpoint.digest(weights))
    if not starts.exists():
        write_start(starts, start, weights)
    del weights
    tokens = np.load(folder / "tokens.npy")
    a = Architecture(**model, vocab_size=VOCAB, lora_rank=RANK)
    rows: dict[str, float | int | str] = {
        "batch_size": batch, "total_steps": WARM_UP + ticks, "schedule": "constant",
        "warmup_steps": 0, "grad_clip": 0.0, "lora_alpha": ALPHA,
    }  # fmt: skip
    begin_peak(torch.device(device))
    engine = Engine(tokens, tokens, slots=trials, dtype=dtype, device=device, starts=starts)
    sequences = (len(tokens) - 1) // a.context_length
    for number in range(trials):
        own = {**rows, "learning_rate": RATE * (1 + number / 10)}
        # a report ends the quantum, so that all trials have warmed up at one moment
        spec = trial(a.model_copy(update={"lora_rank": 0}), number, own, (sequences, 1))
        changes = {"architecture": a, "init_from": start,
                   "report_tokens": WARM_UP * batch * a.context_length}  # fmt: skip
        engine.add_trial(str(number), spec.model_copy(update=changes))
    reported: set[str] = set()
    while len(reported) < trials:
        reported |= {report.trial_id for report in engine.step()}
    before, begun, started = engine.tokens, time.process_time(), time.perf_counter()
    losses = {}
    while engine.num_pending:
        losses |= {report.trial_id: report.train_loss for report in engine.step()}
    seconds, wall = time.process_time() - begun, time.perf_counter() - started
    return {
        "tokens": engine.tokens - before, "seconds": seconds, "wall": wall, "loss": losses["0"],
        "peak_bytes": peak_bytes(torch.device(device)),
    }  # fmt: skip


if __name__ == "__main__":
    _, at, name, number, length, kind = sys.argv
    sys.stdout.write(json.dumps(main(Path(at), name, int(number), int(length), kind)) + "\n")
