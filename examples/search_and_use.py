"""A small search from Python, and uses of its result.

python examples/search_and_use.py
python examples/search_and_use.py --trials 24 --tokens 240000      the size of lm.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tuner import export, load_space, load_trial, sample, search
from tuner.space_file.overrides import Override

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "lm.yaml"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--trials", type=int, default=5)
parser.add_argument("--tokens", type=int, default=20_000, help="of each trial")
parser.add_argument("--export", type=Path, default=Path("exported"), help="folder to create")
options = parser.parse_args()

# The space of a file, smaller.
settings = {
    "search.trials": options.trials,
    "budget.tokens": options.tokens,
    "model.d_model": 32,
    "confirm": "off",
}
space = load_space(SPACE, [Override.parse(f"{key}={value}") for key, value in settings.items()])
result = search(space)
print(result)

# As a data frame: a row for each trial.
print(result.to_pandas()[["val_loss", "outcome", "max_learning_rate", "batch_size"]])

# As an Optuna study: stopped trials are pruned, with their curves.
study = result.to_study()
states = ", ".join(f"{trial.number}: {trial.state.name.lower()}" for trial in study.trials)
print(f"study: the best value is {study.best_value:.4f}; {states}")

# The winner with its weights: it generates text, and is exported for Hugging Face transformers.
trained = load_trial(search=result.name)
print(trained)
(text,) = sample([trained], "import ")
print(f"import {text}")
files = export(trained, options.export, "hf", result=result)
print(f"{options.export}: {', '.join(sorted(file.name for file in files))}")
