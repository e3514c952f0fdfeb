"""The atlas: losses of many small models, from which `tuner suggest` knows what is good where.

    python bench/atlas.py                  train what is missing, for hours; then pack
    python bench/atlas.py --seconds 600    train for ten minutes; a later call goes on
    python bench/atlas.py --pack           pack what there is

Trials are trained one after another, one on each core, by the trainer of `tuner search`. A run can
be cut off: each trial is a line of runs/atlas/rows.jsonl, and all cells grow together.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from parts.atlas.cells import TEXTS, Row, rows
from parts.atlas.pack import trained_of, write
from parts.atlas.texts import data_of

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.spec.trial import TrialSpec
from tuner.knowledge.atlas import PATH
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "atlas"
_DEAR = 20.0  # seconds; trials that take longer come later, and many short ones tell more


def space_of(row: Row, folder: Path) -> SearchSpace:
    """Return the space of a trial, through a file as users write it."""
    file = folder / "spaces" / f"{os.getpid()}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(row.space(data_of(row.text, folder / "texts"))), "utf-8")
    return load_space(file)


@cache
def _corpus(text: str, folder: Path) -> Corpus:
    space = space_of(next(row for row in rows() if row.text == text), folder)
    return prepare(space.data, space.tokenizer, folder / "corpora")


def spec_of(row: Row, folder: Path) -> TrialSpec:
    """Return the specification of a trial."""
    space = space_of(row, folder)
    return space.spec(space.defaults(), DataFacts.of(_corpus(row.text, folder)), row.seed)


def train(row: Row, folder: Path) -> dict[str, Any]:
    """Train a trial, and return its line."""
    corpus, began = _corpus(row.text, folder), time.monotonic()
    spec = spec_of(row, folder)
    reports = list(Engine(*corpus.splits, slots=1, is_compiled=True).run([spec]))
    return {
        "key": row.key,
        "status": str(reports[-1].status),
        "curve": [[r.tokens, _rounded(r.val_loss)] for r in reports],
        "seconds": round(time.monotonic() - began, 2),
    }


def _rounded(loss: float) -> float | None:
    return round(loss, 6) if math.isfinite(loss) else None


def _settle_down(nice: int) -> None:
    os.nice(nice)
    torch.set_num_threads(1)


def trained(file: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a run by the key of their trial; a line that was cut off is none."""
    found = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                found[json.loads(line)["key"]] = json.loads(line)
    return found


def fill(options: argparse.Namespace) -> None:
    """Train the trials that are missing, until the time is over."""
    file, until = options.folder / "rows.jsonl", time.monotonic() + options.seconds
    for text in TEXTS:
        _corpus(text, options.folder)
    done = trained(file)
    every = rows()
    missing = [row for row in every if row.key not in done]
    missing.sort(key=lambda row: row.share * (1 + _cost([row]) / _DEAR))
    print(f"{len(done)} of {len(every)} trials are trained")
    paid, total = 0.0, _cost(missing)
    began = time.monotonic()
    with (
        ProcessPoolExecutor(
            options.processes, initializer=_settle_down, initargs=(options.nice,)
        ) as pool,
        file.open("a", encoding="utf-8") as out,
    ):
        running = {}
        while missing or running:
            while missing and len(running) < options.processes and time.monotonic() < until:
                row = missing.pop(0)
                running[pool.submit(train, row, options.folder)] = row
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                row = running.pop(future)
                line = future.result()
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                out.flush()
                paid += _cost([row])
                left = (time.monotonic() - began) * (total - paid) / paid
                result = f"{line['seconds']:7.1f} s  {line['status']} at {line['curve'][-1][1]}"
                print(f"{row.key:28} {result}; about {left / 60:.0f} minutes left", flush=True)


def _cost(some: list[Row]) -> float:
    """Return about how long trials take, in seconds of one slow core."""
    cost = 0.0
    for row in some:
        d, layers = row.size.d_model, row.size.n_layers
        weights = 2 * 1024 * d + layers * 12 * d * d + 40_000
        cost += 8.5e-11 * row.tokens * weights * (1 + 2 / row.values["B"])
    return cost


def main() -> int:
    """Train, and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=math.inf, help="train for so long")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--nice", type=int, default=5, help="how much other processes come first")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="texts and trained trials")
    parser.add_argument("--pack", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=PATH, help="the atlas")
    options = parser.parse_args()
    if not options.pack:
        fill(options)
    every, lines = rows(), trained(options.folder / "rows.jsonl")
    found = trained_of(every, lines, partial(spec_of, folder=options.folder))
    card = write(found, options.out, "python bench/atlas.py", len(every))
    print(json.dumps(card, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
