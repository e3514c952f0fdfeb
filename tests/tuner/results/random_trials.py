"""Searches that never ran: random draws of a space, each with a loss that is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.engine.report import Report, Status
from tuner.conductor.trial import Trial
from tuner.results.advice import advise
from tuner.results.range_edit import from_unit
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Choice, Range, Value
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

FACTS = DataFacts(300, 100_000, 10_000, "data", "tokenizer")
HEAD = """
data: {source: python-stdlib}
tokenizer: {vocab_size: 300}
model: {d_model: 16, n_layers: 1, n_heads: 2, context_length: 16}
budget: {tokens: 20000, reports: 5}
search: {trials: 24}
"""
SPACE = """hyperparameters:
  α_max:    {log: [1e-4, 3e-2]}
  α_min:    {fraction_of: α_max, log: [0.01, 0.5]}
  T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}
  β1:       {uniform: [0.8, 0.95]}
  λ:        {log: [5e-3, 1.0]}
  τ:        {log: [0.25, 4.0]}
  B:        {choice: [8, 16, 32]}
"""
Draw = dict[str, Value]
Loss = Callable[[Draw], float]


def load(folder: Path, text: str = SPACE) -> SearchSpace:
    (folder / "space.yaml").write_text(HEAD + text, encoding="utf-8")
    return load_space(folder / "space.yaml")


def draw(space: SearchSpace, rng: random.Random, fixed: Mapping[str, Value]) -> Draw:
    drawn: Draw = {}
    for p in space.searched:
        d = p.distribution
        if not space.is_drawn(p, drawn):
            continue
        if isinstance(d, Range):
            value = from_unit(d, rng.random())
            drawn[p.label] = round(value) if d.is_whole else value
        elif isinstance(d, Choice):
            drawn[p.label] = rng.choice(d.values)
        drawn |= {k: v for k, v in fixed.items() if k == p.label}
    return drawn


def trained(space: SearchSpace, number: int, drawn: Draw, loss: float, reports: int = 99) -> Trial:
    """A trial with its reports; it diverges at the second one if its loss is not finite."""
    spec = space.spec(drawn, FACTS, 0)
    row = Trial(number, spec, drawn)
    steps = spec.report_steps[:reports]
    for i, step in enumerate(steps, 1):
        status = Status.FINISHED if i == len(spec.report_steps) else Status.TRAINING
        is_bad = i > 1 and not math.isfinite(loss)
        value = loss + 2 / i if math.isfinite(loss) else 9.0
        row.reports.append(
            Report(
                str(number), Status.DIVERGED if is_bad else status, step,
                step * spec.tokens_per_step, math.nan if is_bad else value, value, 1.0, 0.01,
            )
        )  # fmt: skip
        if is_bad:
            break
    return row


class Made:
    """A search of random draws, or of given ones, with a known loss."""

    def __init__(
        self,
        space: SearchSpace,
        loss: Loss,
        trials: int = 24,
        fixed: Sequence[Mapping[str, Value]] = (),
        reports: Callable[[int], int] = lambda _: 99,
        seed: int = 0,
    ) -> None:
        rng = random.Random(seed)
        self.space = space
        self.draws = {
            i: draw(space, rng, fixed[i] if i < len(fixed) else {}) for i in range(trials)
        }
        self.rows = [trained(space, i, d, loss(d), reports(i)) for i, d in self.draws.items()]

    def advise(self, **options: Any) -> list[str]:
        return advise(self.space, self.rows, **options)
