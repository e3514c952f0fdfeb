"""A search of LoRA trials of ours: `python -m parts.lora.search FOLDER SIZE TRIALS TICKS`.

Writes for the peer, `parts.lora.pool`, what was trained: FOLDER/trials.json with rate, α and loss
on held-out text of each trial, and the token ids of both parts of the text. Prints the losses as
JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from parts.lora.setting import RANK, SIZES, WARM_UP
from parts.measuring import ROOT

CHARACTERS = 400_000  # of the text


def write_text(folder: Path) -> None:
    """Write the text of the trials: code of this project, file by file."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("model/**/*.py"))]
    (folder / "text.txt").write_text("\n".join(sources)[:CHARACTERS], encoding="utf-8")


def space_of(folder: Path, size: str, trials: int, ticks: int) -> str:
    """Return the search space as YAML."""
    model, batch = SIZES[size]
    tokens = (WARM_UP + ticks) * batch * model["context_length"]
    return f"""\
name: lora
init_from: {{huggingface: {folder}}}
data:      {{files: [{folder}/text.txt], validation_fraction: 0.02, split_by: position}}
tokenizer: {{file: {folder}/tokenizer.json}}
model:     {{context_length: {model["context_length"]}}}
lora:      {{rank: {RANK}, alpha: {{log: [8, 64]}}}}
hyperparameters:
  α:        {{log: [1e-4, 1e-2]}}
  B:        {batch}
  schedule: constant
  T_warmup: 0
  τ:        0
budget:    {{tokens: {tokens}, reports: 1}}
engine:    {{dtype: float32, compile: off}}
search:    {{trials: {trials}, sampler: random, scheduler: none}}
confirm:   off
"""


def main(folder: Path, size: str, trials: int, ticks: int) -> dict[str, Any]:
    """Search, and return the losses."""
    from model.corpus.prepare import prepare
    from tuner import Home, load_space, search

    file = folder / "space.yaml"
    file.write_text(space_of(folder, size, trials, ticks), encoding="utf-8")
    result = search(load_space(file), home=Home.of(folder / f"runs-{time.time_ns()}"))
    rows = []
    for trial in result.trials:
        h = trial.spec.hyperparameters
        (report,) = trial.reports
        row = {"rate": h.learning_rate, "alpha": h.lora_alpha, "loss": report.val_loss}
        rows.append(row)
    (folder / "trials.json").write_text(json.dumps(rows))
    spec = result.trials[0].spec
    corpus = prepare(spec.data, spec.tokenizer, folder / "corpora")
    for part, tokens in zip(("train", "validation"), corpus.splits, strict=True):
        np.save(folder / f"{part}.npy", tokens)
    return {"losses": [row["loss"] for row in rows]}


if __name__ == "__main__":
    _, at, name, number, length = sys.argv
    sys.stdout.write(json.dumps(main(Path(at), name, int(number), int(length))) + "\n")
