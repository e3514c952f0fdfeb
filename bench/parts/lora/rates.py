"""Rates of LoRA beside those of full fine-tuning: `python -m parts.lora.rates FOLDER [quick]`.

A small Llama is trained on one text, exported, and imported as the start of trials on another:
LoRA of three ranks, all weights, and all weights from random ones, each at several rates and
equally many tokens; then the best rate of each with further seeds. Prints JSON: side → rates,
losses, and losses of the seeds.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from model.checkpoints import checkpoint
from model.checkpoints.warm_start import write_start
from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.exchange.families import FAMILIES
from model.exchange.pretrained import Pretrained
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.trial import InitFrom, TrialSpec
from parts.measuring import ROOT

MODEL = {"d_model": 64, "n_layers": 2, "n_heads": 4, "context_length": 64}
BASE_TOKENS, TUNE_TOKENS, SEEDS, VOCAB = 400_000, 48_000, 2, 1_024
SCHEDULE = {"schedule": "linear", "min_learning_rate": 0.0, "batch_size": 8}
RATES = {
    "LoRA, rank 2": (1e-3, 3e-3, 1e-2, 3e-2),
    "LoRA, rank 8": (1e-3, 3e-3, 1e-2, 3e-2),
    "LoRA, rank 32": (1e-3, 3e-3, 1e-2, 3e-2),
    "all weights": (1e-4, 3e-4, 1e-3, 3e-3),
    "from random weights": (1e-2, 3e-2),
}


def texts(folder: Path, *, quick: bool) -> tuple[Corpus, Corpus]:
    """Return the text of the pretraining and that of the trials, by one tokenizer."""
    first, second = DataConfig(source="python-stdlib"), DataConfig(source="python-docstrings")
    if quick:
        first, second = (
            DataConfig(files=(str(ROOT / name),)) for name in ("CONTRIBUTING.md", "CHANGELOG.md")
        )
    base = prepare(first, TokenizerConfig(vocab_size=300 if quick else VOCAB), folder / "corpora")
    base.tokenizer.save(folder, "huggingface")
    own = TokenizerConfig(file=str(folder / "tokenizer.json"))
    return base, prepare(second, own, folder / "corpora")


def pretrained(folder: Path, corpus: Corpus, tokens: int) -> InitFrom:
    """Train a model, export it as a Llama, import it, and write it as a start of trials."""
    rows = {"α_max": 1e-2, "batch_size": 16}
    spec = TrialSpec.of(corpus, rows, MODEL, budget_tokens=tokens, report_tokens=tokens)
    (report,) = Engine(*corpus.splits, checkpoint_dir=folder / "base").run([spec])
    assert report.checkpoint is not None
    tensors, _ = checkpoint.read(Path(report.checkpoint))
    family, a = FAMILIES["llama"], spec.architecture
    weights = {n.removeprefix("weights."): w for n, w in tensors.items() if n.startswith("w")}
    save_file(family.export(a, weights), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.config(a)), encoding="utf-8")
    imported = {f"weights.{n}": w for n, w in Pretrained.open(folder).weights().items()}
    start = InitFrom(sha256=checkpoint.digest(imported))
    write_start(folder / "starts", start, imported)
    return start


def trial(corpus: Corpus, side: str, rate: float, tokens: int, seed: int, start: InitFrom) -> Any:
    """Return the trial of a side at a rate."""
    model: dict[str, Any] = {**MODEL}
    if side.startswith("LoRA"):
        model["lora_rank"] = int(side.rpartition(" ")[2])
    return TrialSpec.of(
        corpus, {**SCHEDULE, "α_max": rate}, model, budget_tokens=tokens, report_tokens=tokens,
        seed=seed, init_from=None if side.startswith("from") else start,
    )  # fmt: skip


def main(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Train all, and return the losses on held-out text."""
    base, corpus = texts(folder, quick=quick)
    start = pretrained(folder, base, 20_000 if quick else BASE_TOKENS)
    tokens = 2_000 if quick else TUNE_TOKENS
    rates = {side: (each[:1] if quick else each) for side, each in RATES.items()}
    engine = Engine(*corpus.splits, starts=folder / "starts")

    def losses(points: list[tuple[str, float, int]]) -> list[float]:
        specs = [trial(corpus, side, rate, tokens, seed, start) for side, rate, seed in points]
        found = {report.trial_id: report.val_loss for report in engine.run(specs)}
        return [found[str(number)] for number in range(len(points))]

    def finite(loss: float) -> float | None:
        return loss if math.isfinite(loss) else None

    first = [(side, rate, 0) for side, each in rates.items() for rate in each]
    measured = dict(zip(first, losses(first), strict=True))
    results: dict[str, Any] = {}
    for side, each in rates.items():
        own = [measured[side, rate, 0] for rate in each]
        best = min(each, key=lambda rate, side=side: (  # a diverged trial has no loss
            finite(measured[side, rate, 0]) or math.inf))  # fmt: skip
        seeds = losses([(side, best, seed) for seed in range(1, 2 if quick else 1 + SEEDS)])
        results[side] = {
            "rates": each, "losses": [*map(finite, own)], "best": best,
            "seeds": [*map(finite, seeds)],
        }  # fmt: skip
    return results


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), quick=len(sys.argv) > 2)) + "\n")
