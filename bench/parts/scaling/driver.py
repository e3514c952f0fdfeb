"""Cost of trials for the driver of a search: conductor, sampler, scheduler, board and journal.

A program for `scaling.py`. The workers are stubs that report at once, and nothing is recorded in
MLflow: `tracking.py` measures the cost of recording.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuner.driver.observer import TrackerObserver, ViewObserver

from model.engine.report import Report, Status
from parts.memory import pss_bytes
from parts.overhead.space import SPACE
from parts.overhead.stub import synthetic_loss
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.driver.driver import Driver
from tuner.driver.view import SilentView
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journal import Journal
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.workers.assignment import Assignment
from tuner.workers.batch import ReportBatch
from tuner.workers.watchdog import Watchdog

SLOTS = 4
FACTS = DataFacts(300, 1_000_000, 20_000, "data", "tokenizer")


class Starts:
    """Worker that only notes which assignment of a trial is the newest."""

    def __init__(self) -> None:
        self.segments: dict[int, int] = {}

    def __getattr__(self, name: str) -> Starts:
        return self

    def remote(self, *arguments: Any) -> None:
        """Take the call of any method."""
        if arguments and isinstance(arguments[0], Assignment):
            self.segments[arguments[0].number] = arguments[0].segment


class Ignore:
    """Object that takes every call and does nothing."""

    problem = None

    def __getattr__(self, name: str) -> Ignore:
        return self

    def __call__(self, *arguments: Any) -> None:
        """Take the call of any method, remote or not."""


def report(row: Trial) -> Report:
    """Return the next report of a trial, with a synthetic loss."""
    step = next(step for step in row.report_steps if step > row.step)
    is_last = step == row.report_steps[-1]
    loss = synthetic_loss(row.spec, step)
    status = Status.FINISHED if is_last else Status.TRAINING
    tokens = step * row.spec.tokens_per_step
    return Report(str(row.number), status, step, tokens, loss, loss, 1.0, 1e-3)


def conducted(
    trials: int, reports: int, sampler: str, scheduler: str, folder: Path
) -> dict[str, Any]:
    """Run one search; return seconds and memory after so many trials, at places √2 apart."""
    text = SPACE.format(
        texts=folder, trials=trials, reports=reports, sampler=sampler, workers=2, slots=2
    )
    (folder / "text.txt").write_text("nobody reads this\n" * 1000)
    (folder / "space.yaml").write_text(text.replace("scheduler: none", f"scheduler: {scheduler}"))
    space = load_space(folder / "space.yaml")
    ignore: Any = Ignore()
    journal = Journal.open(folder / "search")
    journal.append(SearchBegun(space, "", FACTS))
    journal.append(SessionBegun({}, SLOTS, in_order=True))
    conductor = Conductor(space, FACTS, SLOTS)
    starts = Starts()
    driver = Driver(
        conductor, journal, [starts, starts],
        [TrackerObserver(ignore, {}), ViewObserver(SilentView(), conductor.board.metric)],
        in_order=True, check_interrupt=lambda: None, watchdog=Watchdog([]),
    )  # fmt: skip
    places = sorted({round(trials / 2 ** (i / 2)) for i in range(11)})
    samples: dict[str, list[float]] = {"trials": [], "seconds": [], "bytes": []}
    began = time.process_time()
    driver.begin()
    while (expected := conductor.expected) is not None:
        row = conductor.board.trials[expected[0]]
        driver.record([(0, ReportBatch(((starts.segments[row.number], report(row)),)))])
        if places and len(conductor.board.trials) >= places[0]:
            samples["trials"].append(places.pop(0))
            samples["seconds"].append(time.process_time() - began)
            samples["bytes"].append(pss_bytes([os.getpid()]))
    driver.close()
    journal.close()
    assert len(conductor.board.searched) == trials
    return {**samples, "reports": reports, "sampler": sampler, "scheduler": scheduler}


def main() -> int:
    """Run one search, and print its measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="none")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        samples = conducted(
            options.trials, options.reports, options.sampler, options.scheduler, Path(folder)
        )
    print(json.dumps(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
