"""The trainer alone, without Ray and MLflow: three learning rates side by side on one device.

python examples/train_one.py
python examples/train_one.py --rates 1e-3 1e-2 --tokens 200000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model import DataConfig, Engine, TokenizerConfig, TrialSpec, prepare

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 1e-2, 3e-2])
parser.add_argument("--tokens", type=int, default=50_000, help="of each trial")
parser.add_argument("--home", type=Path, default=Path("runs"), help="for the prepared text")
options = parser.parse_args()

# The text: the source code of the standard library, tokenized once and cached.
data, tokenizer = DataConfig(source="python-stdlib"), TokenizerConfig(vocab_size=2048)
corpus = prepare(data, tokenizer, options.home / "corpora")

# A trial for each peak rate. A specification holds everything that the trial's numbers depend on;
# the corpus fills in its own fields, and all other hyperparameters get the symbol table's defaults.
specs = [
    TrialSpec.of(
        corpus,
        {"α_max": rate},
        {"d_model": 32, "n_layers": 2},
        budget_tokens=options.tokens,
        report_tokens=options.tokens // 4,
    )
    for rate in options.rates
]

# Train them as slots of one engine, which yields their reports.
engine = Engine(corpus.train, corpus.validation, slots=len(options.rates))
best: dict[str, float] = {}
for report in engine.run(specs):
    rate = options.rates[int(report.trial_id)]
    print(f"α_max {rate:<7g} step {report.step:3d}  val_loss {report.val_loss:.4f}")
    best[report.trial_id] = report.val_loss

winner = min(best, key=lambda trial: best[trial])
print(f"best: α_max {options.rates[int(winner)]:g}, val_loss {best[winner]:.4f}")
