"""Losses of trials in float32 and in mixed_bfloat16, beside those of another seed.

    python bench/precision.py                   some trials of lm.yaml, two minutes of a core
    python bench/precision.py --quick           short trials, as a test of the bench
    python bench/precision.py --out FILE.json

Each trial is trained three times, with equal data: in float32, in mixed_bfloat16, and in float32
with another seed, which draws other initial weights and another order of the data. The difference
that the dtype makes should be far below that of the seed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from parts.measuring import ROOT, about, finish, goal

from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.spec.trial import TrialSpec
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

MIXED = "mixed_bfloat16"
RATES = (0.003, 0.01, 0.021, 0.03)  # learning rates within the space
MOST = 0.2  # of a seed's difference


def losses(corpus: Any, spec: TrialSpec, dtype: str) -> list[float]:
    """Return the validation losses of a trial's reports."""
    engine = Engine(corpus.train, corpus.validation, slots=1, dtype=dtype)
    return [report.val_loss for report in engine.run([spec])]


def measure(options: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """Train every trial three times; return their losses by kind."""
    space = load_space(ROOT / "search_spaces" / "lm.yaml")
    if options.quick:
        budget = space.budget.model_copy(update={"tokens": 9 * 1024, "validation_tokens": 1024})
        space = space.model_copy(update={"budget": budget})
    corpus = prepare(space.data, space.tokenizer, home)
    facts = DataFacts.of(corpus)
    measured = []
    for rate in RATES[:2] if options.quick else RATES:
        point = {**space.defaults(), "max_learning_rate": rate}
        spec, other = (space.spec(point, facts, seed) for seed in (0, 1))
        kinds = {
            "float32": (spec, "float32"), MIXED: (spec, MIXED), "seed": (other, "float32"),
        }  # fmt: skip
        of_kind = {kind: losses(corpus, *how) for kind, how in kinds.items()}
        measured.append({"rate": rate, "losses": of_kind})
    return measured


def result_of(measured: list[dict[str, Any]], *, quick: bool) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`."""
    rows, dtypes, seeds = [], [], []
    for trial in measured:
        exact, mixed, seed = (trial["losses"][kind][-1] for kind in ("float32", MIXED, "seed"))
        dtypes.append(abs(mixed - exact))
        seeds.append(abs(seed - exact))
        rows.append(
            [f"α_max {trial['rate']:g}"]
            + [f"{value:.4f}" for value in (exact, mixed, seed)]
            + [f"{mixed - exact:+.4f}", f"{seed - exact:+.4f}"]
        )
    share = statistics.mean(dtypes) / statistics.mean(seeds)
    columns = ["trial", "float32", MIXED, "float32, another seed", "by the dtype", "by the seed"]
    goals = [goal("difference by the dtype, as a share of that by a seed", share, most=MOST)]
    return {
        "bench": "precision",
        "about": about(["torch"]),
        "tables": [{"title": "last validation losses of lm.yaml's trials, nats per token",
                    "columns": columns, "rows": rows}],
        "goals": [] if quick else goals,
        "notes": ["The numbers have the losses of every report."],
        "numbers": measured,
    }  # fmt: skip


def main() -> int:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="short trials")
    parser.add_argument("--corpora", type=Path, help="folder of prepared corpora")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options, options.corpora or Path(folder))
    result = result_of(measured, quick=options.quick)
    finish(result, options.out, lambda path: None, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
