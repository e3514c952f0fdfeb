"""Trials of the committed table of bench/search_quality.py: real losses of complete trials."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from model.engine.report import Report, Status
from tuner.conductor.trial import Trial
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "bench" / "parts" / "search_quality" / "tables" / "lm.json.gz"


def table_trials() -> list[Trial]:
    """The 257 trials of the table, the defaults first."""
    table = json.loads(gzip.decompress(TABLE.read_bytes()))
    space = load_space(ROOT / "search_spaces" / "lm.yaml")
    facts = DataFacts(**table["facts"])
    trials = []
    for number, row in enumerate(table["rows"]):
        spec = space.spec(row["draw"], facts, table["seed"])
        trial = Trial(number, spec, row["draw"])
        for step, (tokens, loss, train) in zip(spec.report_steps, row["curve"], strict=True):
            status = Status.FINISHED if step == spec.report_steps[-1] else Status.TRAINING
            assert tokens == step * spec.tokens_per_step
            trial.reports.append(Report(str(number), status, step, tokens, loss, train, 1.0, 0.01))
        trials.append(trial)
    return trials
