"""Time and size of a report, for searches of 24 and of 500 trials.

    python bench/report.py                       24 and 500 trials
    python bench/report.py --trials 24 100 500   other numbers of trials
    python bench/report.py --quick               a dozen trials, as a test of the bench
    python bench/report.py --out FILE.json       also write the numbers
    python bench/report.py --page FILE.md        also write the page, docs/bench/report.md

The trials are those of `tuner search` with lm.yaml and a random sampler; a formula computes their
reports. Each number is the median of three reports in a process that has written one before; the
first report of a process also imports the libraries for plots and statistics.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from model.engine.report import Report, Status
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.report.write import write_report
from tuner.results.advice import advise
from tuner.results.result import SearchResult
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space

ROOT = Path(__file__).resolve().parents[1]
FACTS = DataFacts(2_048, 3_500_000, 180_000, "data", "tokenizer")
SLOTS, ROUNDS = 4, 3
QUICK = 12  # trials
STARTED = 1_795_276_800_000  # milliseconds


def reported(row: Trial, step: int) -> Report:
    """Return a report of a trial: best near a learning rate of 0.01, NaN far above it."""
    h, tokens = row.spec.hyperparameters, step * row.spec.tokens_per_step
    loss = 3 + abs(math.log10(h.max_learning_rate / 0.01)) + 0.2 * abs(math.log10(h.weight_decay))
    loss += 2 / (1 + tokens / 30_000)
    status = Status.FINISHED if step == h.total_steps else Status.TRAINING
    if h.max_learning_rate > 0.025 and tokens > 60_000:
        loss, status = math.nan, Status.DIVERGED
    return Report(str(row.number), status, step, tokens, loss, loss, 1.0, 0.01)


def synthetic_result(trials: int) -> SearchResult:
    """Return the result of a search without training."""
    path = ROOT / "search_spaces" / "lm.yaml"
    space = load_space(path)
    settings = space.search.model_copy(update={"trials": trials, "sampler": "random"})
    space = space.model_copy(update={"search": settings})
    conductor = Conductor(space, FACTS, SLOTS)
    conductor.fill()
    seconds = 0
    while (expected := conductor.expected) is not None:
        number, step = expected
        row, seconds = conductor.board.trials[number], seconds + 1
        row.times.append(STARTED + 1000 * seconds)
        conductor.report(number, reported(row, step))
        conductor.fill()
    conductor.close()
    board = conductor.board
    assert board.best is not None
    return SearchResult(
        name="made-up-1", space=space, metric=board.metric, trials=board.searched, best=board.best,
        run_ids={number: f"{number:032x}" for number in board.trials}, experiment_id="1",
        wall_seconds=float(seconds), training_share=0.97, started=STARTED,
        space_text=path.read_text(encoding="utf-8"), confirming=board.confirming,
        confirmation=conductor.confirmation, advice=advise(space, board.searched, "made-up-1"),
    )  # fmt: skip


def seconds_of(action: Any, rounds: int) -> float:
    """Return the median seconds of a function, warm."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return median(times)


def measured(trials: int, folder: Path) -> dict[str, Any]:
    """Measure the report of one search."""
    result, page = synthetic_result(trials), folder / "report.html"
    rounds = 1 if trials <= QUICK else ROUNDS
    began = time.perf_counter()
    write_report(result, page)
    return {
        "trials": trials,
        "first_seconds": time.perf_counter() - began,
        "seconds": seconds_of(lambda: write_report(result, page), rounds),
        "bytes": page.stat().st_size,
    }


def page(measurements: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    rows = [
        f"| {run['trials']} | {run['seconds']:.2f} | {run['first_seconds']:.2f} "
        f"| {run['bytes'] / 1e6:.2f} |"
        for run in measurements["runs"]
    ]
    lines = [
        "# What a report costs",
        "",
        "Making the page of a search (`tuner report`), importances included. Of the size, 4.8 MB "
        "are Plotly's script, so that the page needs no network. The first page of a process also "
        "imports what draws and counts.",
        "",
        "| trials | report, s | first of its process, s | size, MB |",
        "|---:|---:|---:|---:|",
        *rows,
        "",
        f"`python bench/report.py`, {measurements['date']}, {measurements['machine']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, nargs="+", default=[24, 500])
    parser.add_argument("--quick", action="store_true", help="a dozen trials")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--page", type=Path, help="write the page")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(options.one, Path(folder))))
        return 0
    runs = []
    for trials in [QUICK] if options.quick else sorted(options.trials):
        command = [sys.executable, __file__, "--one", str(trials)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("plotly", "optuna"))
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    measurements = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{cores} cores, load {load:.2f}; {versions}",
        "runs": runs,
    }
    text = page(measurements)
    print(text)
    if options.page:
        options.page.write_text(text, encoding="utf-8")
    if options.out:
        options.out.write_text(json.dumps(measurements, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
