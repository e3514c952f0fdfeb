"""Cost of recording a trial in MLflow, by a tracker without a search.

    python bench/tracking.py                     into SQLite, and over HTTP to MLflow's server on it
    python bench/tracking.py --trials 20         fewer trials
    python bench/tracking.py --no-server         SQLite alone
    python bench/tracking.py --out FILE.json     also write the numbers

Trials are recorded with all parameters and data sets, report ten times, and end. Each report is
sent alone, as in a search whose reports come seconds apart. The cost of a report is a ninth of the
difference between trials of ten reports and of one; the cost of a trial is the rest. *Caller*: time
of calls of the tracker in the thread of the driver. *CPU*: processor time of this process, mostly
of the writer thread; over HTTP without that of the server. *Wall*: time until the store has all.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner.tracking.tracker import Tracker

from model.engine.report import Report, Status
from model.spec.data import DataConfig
from tuner.space.data_facts import DataFacts
from tuner.space_file.load import load_space
from tuner.tracking.datasets import dataset_inputs
from tuner.tracking.runs import RunSettings
from tuner.tracking.store import open_client

ROOT = Path(__file__).resolve().parents[1]
FACTS = DataFacts(2048, 3_000_000, 150_000, "d" * 64, "t" * 64)
ENVIRONMENT = {"device": "cpu: x", "dtype": "float32", "torch": "2", "numpy": "2", "python": "3"}
REPORTS = 10


@contextmanager
def server(store: str, folder: Path) -> Iterator[str]:
    """Run MLflow's server as `tuner ui` starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--artifacts-destination", folder.as_uri(),
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **quiet}
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=null, stderr=null) as process:
        try:
            root = f"http://127.0.0.1:{port}"
            while process.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"{root}/health", timeout=5):
                    break
                time.sleep(0.2)
            yield root
        finally:
            process.terminate()


def record(uri: str, folder: Path, search: str, trials: int, reports: int) -> dict[str, float]:
    """Record trials, and return the seconds."""
    space = load_space(ROOT / "search_spaces" / "lm.yaml")
    specs = [space.spec({}, FACTS, seed) for seed in range(trials)]
    inputs = dataset_inputs(DataConfig(), FACTS)
    tracker = Tracker(RunSettings(uri, folder, "bench", search, {}, inputs=inputs))
    tracker.flush()
    wall, cpu, called = time.perf_counter(), time.process_time(), 0.0
    for step in range(1, reports + 1):
        begun = time.thread_time()
        for number, spec in enumerate(specs):
            if step == 1:
                tracker.start_trial(number, spec, ENVIRONMENT)
            report = Report(str(number), Status.TRAINING, step, step * 999, 1 / step, 1, 1, 0.1)
            tracker.log_report(number, report)
            if step == reports:
                tracker.end_trial(number, "finished")
        called += time.thread_time() - begun
        tracker.flush()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tracker.finish("finished", {}, None)
    return {"caller": called, "cpu": cpu, "wall": wall}


def measured(uri: str, folder: Path, trials: int) -> dict[str, float]:
    """Return the milliseconds of each trial and of each report."""
    record(uri, folder, "warm-up", 3, 1)
    one, ten = (record(uri, folder, f"{n}", trials, n) for n in (1, REPORTS))
    measurements = {}
    for what in one:
        per_report = (ten[what] - one[what]) / trials / (REPORTS - 1)
        measurements[f"{what}_ms_per_report"] = 1e3 * per_report
        measurements[f"{what}_ms_per_trial"] = 1e3 * (one[what] / trials - per_report)
    return measurements


def main() -> int:
    """Measure both stores, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--no-server", action="store_true", help="SQLite alone")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    measurements: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stores = [f"sqlite:///{folder}/{name}.db" for name in ("direct", "served")]
        for store in stores:
            open_client(store)  # creates its tables
        measurements["SQLite"] = measured(stores[0], folder / "artifacts", options.trials)
        if not options.no_server:
            with server(stores[1], folder / "served") as root:
                measurements["HTTP, 1 worker"] = measured(root, folder, options.trials)
    columns = [
        f"{what}_ms_per_{of}" for of in ("trial", "report") for what in ("caller", "cpu", "wall")
    ]
    print(f"{options.trials} trials of {REPORTS} reports; load {os.getloadavg()[0]:.1f}\n")
    print("| ms | " + " | ".join(c.replace("_ms_", " ").replace("_", " ") for c in columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for store, values in measurements.items():
        print(f"| {store} | " + " | ".join(f"{values[c]:.3f}" for c in columns) + " |")
    if options.out:
        options.out.write_text(json.dumps(measurements, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
