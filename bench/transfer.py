"""Does the best learning rate of a small model hold for a large one?

    python bench/transfer.py                      widths 32 to 256, depths 2 to 8: about 40 minutes
    python bench/transfer.py --parts width        one part of it
    python bench/transfer.py --quick              tiny models, as a test of the bench
    python bench/transfer.py --out FILE.json --plot FILE.png --rows FILE.jsonl

As `tuner transfer --verify` does, it trains each size at learning rates an octave apart, with two
paired seeds, until the lowest loss lies inside, once with the factors of a proxy and once in the
usual parametrization. Each loss is written to --rows as it is measured; a bench that was cut off
goes on from there.

The target of the widths is then trained with the best rate of the smallest model, and compared with
the best of its own sweep. All trials train on the same number of tokens; times do not count.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from parts import measuring
from parts.measuring import goal

from model.corpus.prepare import prepare
from model.spec.architecture import Architecture
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.transfer.picture import draw_sweeps
from tuner.transfer.sweep import Sweep, Trainer, measure, sizes_of, trial_spec
from tuner.transfer.verdict import Move, Optimum, move_of, optimum

PARTS = ("width", "depth")
RATE = 8e-3  # middle of the sweeps
SPACE = """
name: transfer
data: {{source: python-stdlib}}
tokenizer: {{vocab_size: {vocabulary}}}
model: {{d_model: {width}, n_layers: {depth}, n_heads: {heads}, context_length: {context}}}
proxy: {{{proxy}}}
hyperparameters:
  α_max: {rate}
  α_min: {{fraction_of: α_max, value: 0.1}}
  T_warmup: {{fraction_of: T_total, value: 0.1}}
  β2: 0.99
  B: 8
budget: {{tokens: {tokens}, reports: 1}}
search: {{scheduler: none}}
"""
FULL: Mapping[str, Mapping[str, Any]] = {
    "width": {"width": 256, "depth": 2, "heads": 32, "proxy": "width: 1/8"},
    "depth": {"width": 64, "depth": 8, "heads": 8, "proxy": "depth: 1/4"},
}
QUICK: Mapping[str, Mapping[str, Any]] = {
    "width": {"width": 32, "depth": 1, "heads": 8, "proxy": "width: 1/4"},
    "depth": {"width": 8, "depth": 4, "heads": 2, "proxy": "depth: 1/4"},
}


@dataclass(frozen=True)
class Part:
    """Sweeps of one part.

    Attributes:
        name: width or depth.
        space: space of its proxy.
        facts: facts of the data.
        sweeps: sweeps of both kinds, smallest size first.
        trainer: trains, and knows what was trained.
    """

    name: str
    space: SearchSpace
    facts: DataFacts
    sweeps: Sequence[Sweep]
    trainer: Trainer

    def move(self, kind: str) -> Move:
        """Return how the optimum of a kind moves."""
        return move_of([sweep for sweep in self.sweeps if sweep.kind == kind])

    def flops(self, sweep: Sweep) -> float:
        """Return the operations of a sweep."""
        spec = trial_spec(self.space, {}, self.facts, sweep.kind, sweep.size, 0, 0)
        count = sum(len(losses) for losses in sweep.losses.values())
        return count * spec.budget_tokens * float(spec.architecture.flops_per_token)


def run_part(name: str, options: argparse.Namespace, folder: Path) -> Part:
    """Train the sweeps of a part."""
    sizes = (QUICK if options.quick else FULL)[name]
    common = {"vocabulary": 300, "context": 16, "tokens": 4_000} if options.quick else {
        "vocabulary": 512, "context": 64, "tokens": options.tokens
    }  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(SPACE.format(**common, **sizes, rate=RATE), encoding="utf-8")
    space = load_space(file)
    corpus = prepare(space.data, space.tokenizer, folder / "corpora")
    facts = DataFacts.of(corpus)

    def on_trained(text: str, number: int, count: int) -> None:
        print(f"{name}: {text}: {number}/{count} trials", file=sys.stderr, flush=True)

    rows = options.rows or folder / "rows.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(folder / "corpora", rows, options.processes, on_trained)
    found = sizes_of(space, {}, facts, most=9)
    return Part(name, space, facts, measure(space, {}, facts, found, trainer), trainer)


def table_of(part: Part) -> dict[str, Any]:
    """Return the optima of a part as a table."""
    rows = []
    for sweep in part.sweeps:
        best, lowest = optimum(sweep), min(fmean(losses) for losses in sweep.losses.values())
        rate = None if best is None else RATE * 2**best.octaves
        rows.append([sweep.size.text, sweep.kind, rate, lowest, len(sweep.losses)])
    return {
        "title": f"Best learning rate by {part.name}",
        "columns": ["model", "parametrization", "best α", "lowest val_loss", "rates"],
        "rows": rows,
    }


def goals_of(part: Part) -> list[Any]:
    """Return the goals of a part; moves that are unknown are left out."""
    doublings = max(sweep.size.octaves for sweep in part.sweeps)
    over = f"over {2**doublings:.3g} times the {part.name}, octaves"
    scaled, standard = part.move("scaled").octaves, part.move("standard").octaves
    goals = []
    if scaled is not None:
        goals.append(goal(f"the optimum moves {over}", abs(scaled.value), most=0.5))
    if standard is not None and part.name == "width":
        what = f"the usual parametrization's moves {over}"
        goals.append(goal(what, abs(standard.value), least=1.5))
    return goals


def transferred(part: Part) -> tuple[list[Any], list[str]]:
    """Train the target at the best rate of the smallest model; return goals and notes."""
    sweeps = [sweep for sweep in part.sweeps if sweep.kind == "scaled"]
    proxy, target = sweeps[0], sweeps[-1]
    best: Optimum | None = optimum(proxy)
    if best is None:
        return [], [f"{part.name}: the smallest model has no best rate"]
    seeds = len(next(iter(target.losses.values())))
    specs = [
        trial_spec(part.space, {}, part.facts, "scaled", target.size, best.octaves, seed)
        for seed in range(seeds)
    ]
    loss = fmean(part.trainer.losses(specs, "target with the proxy's rate"))
    lowest = min(fmean(losses) for losses in target.losses.values())
    share = part.flops(proxy) / part.flops(target)
    goals = [
        goal("loss of the target above the best of its own sweep, %", 100 * (loss / lowest - 1),
             most=0.5),
        goal("compute of the proxy's sweep, % of the target's", 100 * share, most=10),
    ]  # fmt: skip
    note = (
        f"The target of {part.name} ends at {loss:.4f} with the rate of {proxy.size.text}, "
        f"{RATE * 2**best.octaves:.3g}; the best of its own sweep is {lowest:.4f}."
    )
    return goals, [note]


def describe(part: Part) -> list[str]:
    """Return the moves with their intervals, as sentences."""
    notes = []
    for kind in ("scaled", "standard"):
        octaves = part.move(kind).octaves
        if octaves is not None:
            notes.append(f"{part.name}, {kind}: {octaves.text()} octaves, 90 % interval.")
        else:
            notes.append(f"{part.name}, {kind}: not all sizes show a lowest loss.")
    return notes


def weights(part: Part) -> str:
    """Return the numbers of weights of a part's models."""
    shapes: list[Architecture] = [
        trial_spec(part.space, {}, part.facts, s.kind, s.size, 0, 0).architecture
        for s in part.sweeps if s.kind == "scaled"
    ]  # fmt: skip
    return f"{part.name}: " + ", ".join(f"{a.num_parameters:,}" for a in shapes) + " weights."


def draw(part: Part, path: Path) -> None:
    """Draw the sweeps of a part."""
    draw_sweeps(part.sweeps, path, f"val_loss by learning rate, several {part.name}s")


def main() -> None:
    """Measure the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tokens", type=int, default=128_000, help="of each trial")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=Path, help="losses measured so far; appended to")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="picture of the first part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-transfer-") as folder:
        parts = [run_part(name, options, Path(folder)) for name in options.parts]
        goals, notes = [], []
        for part in parts:
            goals += goals_of(part)
            notes += [weights(part), *describe(part)]
            if part.name == "width":
                more, told = transferred(part)
                goals, notes = goals + more, notes + told
        assert all(math.isfinite(each["reached"]) for each in goals)
        result = {
            "bench": "transfer",
            "about": measuring.about(["torch", "numpy"]),
            "tables": [table_of(part) for part in parts],
            "goals": goals,
            "notes": notes,
            "numbers": {
                part.name: [
                    [s.size.text, s.kind, {str(x): list(v) for x, v in s.losses.items()}]
                    for s in part.sweeps
                ]
                for part in parts
            },
        }
        measuring.finish(result, options.out, partial(draw, parts[0]), options.plot)


if __name__ == "__main__":
    main()
