"""The trainer alone, without Ray and MLflow: three learning rates side by side on one device.

python examples/train_one.py
python examples/train_one.py --rates 1e-3 1e-2 --tokens 200000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model import Architecture, DataConfig, Engine, TokenizerConfig, TrialSpec, derive, prepare

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 1e-2, 3e-2])
parser.add_argument("--tokens", type=int, default=50_000, help="of each trial")
parser.add_argument("--home", type=Path, default=Path("runs"), help="for the prepared text")
options = parser.parse_args()

# The text: the standard library's own source, cut into tokens once and cached.
data, tokenizer = DataConfig(source="python-stdlib"), TokenizerConfig(vocab_size=2048)
corpus = prepare(data, tokenizer, options.home / "corpora")

# What a trial is. All of it enters the trial's identity, and nothing else has a say in its numbers.
shape = Architecture(vocab_size=corpus.tokenizer.vocab_size, d_model=32, n_layers=2)
sequences = corpus.num_sequences("train", shape.context_length)


def spec(rate: float) -> TrialSpec:
    """A trial with this peak rate, and the defaults of the symbol table for the rest."""
    return TrialSpec(
        hyperparameters=derive(
            {"max_learning_rate": rate},
            train_sequences=sequences,
            context_length=shape.context_length,
            budget_tokens=options.tokens,
        ),
        architecture=shape,
        data=data,
        tokenizer=tokenizer,
        data_fingerprint=corpus.data_fingerprint,
        tokenizer_fingerprint=corpus.tokenizer_fingerprint,
        train_sequences=sequences,
        validation_sequences=64,
        micro_batch=8,
        report_tokens=options.tokens // 4,
        seed=0,
    )


# Train them as slots of one engine; reports come as they are made.
engine = Engine(corpus.train, corpus.validation, slots=len(options.rates))
best: dict[str, float] = {}
for report in engine.run([spec(rate) for rate in options.rates]):
    rate = options.rates[int(report.trial_id)]
    print(f"α_max {rate:<7g} step {report.step:3d}  val_loss {report.val_loss:.4f}")
    best[report.trial_id] = report.val_loss

winner = min(best, key=lambda trial: best[trial])
print(f"best: α_max {options.rates[int(winner)]:g}, val_loss {best[winner]:.4f}")
