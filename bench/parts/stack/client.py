"""One client of the stack: records reports for some seconds, each sent alone, and prints how many.

    python -m parts.stack.client NAME SECONDS

The server and the login are those of MLflow's variables. It says `ready` once the record of its
search is begun, and starts to count when a line comes to its standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tuner.tracking.tracker import Tracker

from model.engine.report import Report, Status
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.tracking.runs import RunSettings

SPACE = Path(__file__).resolve().parents[3] / "search_spaces" / "lm.yaml"
FACTS = DataFacts(2048, 3_000_000, 150_000, "d" * 64, "t" * 64)
ENVIRONMENT = {"device": "cpu: x", "dtype": "float32", "torch": "2", "numpy": "2", "python": "3"}


def report(step: int) -> Report:
    """Return a report of the trial 0."""
    return Report("0", Status.TRAINING, step, step * 999, 1 / step, 1, 1, 0.1)


def begin(name: str, folder: Path) -> Tracker:
    """Return the tracker of a search with one trial that the server has."""
    settings = RunSettings(os.environ["MLFLOW_TRACKING_URI"], folder, name, name, {})
    tracker = Tracker(settings)
    tracker.start_trial(0, load_space(SPACE).spec({}, FACTS, 0), ENVIRONMENT)
    tracker.log_report(0, report(1))
    tracker.flush()
    return tracker


def main() -> None:
    """Record, and print the number of reports and the seconds."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        tracker = begin(name, Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        started, step = time.perf_counter(), 1
        while time.perf_counter() - started < seconds:
            step += 1
            tracker.log_report(0, report(step))
            tracker.flush()
        print(step - 1, time.perf_counter() - started, flush=True)
        tracker.finish("finished", {}, None)


if __name__ == "__main__":
    main()
