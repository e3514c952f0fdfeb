"""Trains the trials of atlas.py, each a line of a file, with which a later run goes on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from model.corpus.corpus import Corpus
from model.corpus.prepare import prepare
from model.engine.engine import Engine
from model.spec.trial import TrialSpec
from parts.atlas.cells import TEXTS, Row, rows
from parts.atlas.texts import data_of
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

_DEAR = 2.0  # seconds; trials that take longer come later, and many short ones tell more


@dataclass(frozen=True)
class Workshop:
    """Where and how trials are trained.

    Attributes:
        folder: texts, prepared corpora and lines of trials.
        processes: trials at one time.
        nice: how much other processes come first.
        seconds: time after which no trial begins.
    """

    folder: Path
    processes: int
    nice: int
    seconds: float = math.inf


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


def train_missing(every: Sequence[Row], name: str, shop: Workshop) -> dict[str, dict[str, Any]]:
    """Train the trials that a file has no line of, until the time is over.

    Args:
        every: trials.
        name: name of the file of lines in the folder.
        shop: where and how.

    Returns:
        The lines of all trained trials, by key.
    """
    file, until = shop.folder / name, time.monotonic() + shop.seconds
    for text in TEXTS:
        _corpus(text, shop.folder)
    done = trained(file)
    missing = [row for row in every if row.key not in done]
    missing.sort(key=lambda row: row.share * (1 + _cost([row]) / _DEAR))
    print(f"{len(every) - len(missing)} of {len(every)} trials are trained")
    paid, total, began = 0.0, _cost(missing), time.monotonic()
    with (
        ProcessPoolExecutor(
            shop.processes, initializer=_settle_down, initargs=(shop.nice,)
        ) as pool,
        file.open("a", encoding="utf-8") as out,
    ):
        running = {}
        while missing or running:
            while missing and len(running) < shop.processes and time.monotonic() < until:
                row = missing.pop(0)
                running[pool.submit(train, row, shop.folder)] = row
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
    return trained(file)


def _cost(some: Sequence[Row]) -> float:
    """Return about how long trials take, in seconds of one slow core."""
    cost = 0.0
    for row in some:
        d, layers = row.size.d_model, row.size.n_layers
        weights = 2 * 1024 * d + layers * 12 * d * d + 40_000
        cost += 8.5e-11 * row.tokens * weights * (1 + 2 / row.values["B"])
    return cost
