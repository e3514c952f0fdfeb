"""Cost of a search: wall time, peak memory, share of time in training.

    python bench/search.py                  the default search, as `make search` runs it
    python bench/search.py --quick          three trials, as a test of the bench
    python bench/search.py --start          only the time until the first trial trains, warm
    python bench/search.py --out FILE.json  also write the numbers

Memory is the proportional set size (PSS) of all processes of the search, Ray's included, summed
every two seconds; Linux only. Training starts with the first step of a worker's engine. With
`--start`, a short search first prepares the data and creates the store, and three more are measured
in its home.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts.measuring import spread
from parts.memory import descendants, pss_bytes

ROOT = Path(__file__).resolve().parents[1]
PERIOD_SECONDS = 2.0  # reading the memory of big processes takes time itself
STARTS = 3
SHORT = ["--set", "budget.tokens=20000", "--set", "search.trials=2", "--set", "confirm=off"]


def run(space: str, home: Path, more: list[str]) -> dict[str, Any]:
    """Run one search in a home, and return its numbers.

    Raises:
        SystemExit: with the output of the search, if it failed.
    """
    command = [sys.executable, "-m", "tuner", "search", "--json", "--fresh", "--home", str(home)]
    command += ["--space", space, *more]
    began, began_at = time.monotonic(), time.time()
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        peak, most, first_report = 0, 0, 0.0
        while process.poll() is None:
            pids = descendants(process.pid)
            peak, most = max(peak, pss_bytes(pids)), max(most, len(pids))
            if not first_report and "report 1/" in (home / "log").read_text():
                first_report = time.monotonic() - began
            time.sleep(PERIOD_SECONDS)
    wall = time.monotonic() - began
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit((home / "log").read_text())
    result = json.loads(out.splitlines()[-1])
    journal = (home / "searches" / result["search"] / "journal.jsonl").read_text()
    first_turn: float = json.loads(journal.splitlines()[-1])["first_turn"]
    return {
        "wall_seconds": wall,
        "first_training_seconds": first_turn - began_at,
        "first_report_seconds": first_report,
        "training_share": result["training_share"],
        "tokens_trained": result["tokens_spent"],
        "tokens_per_second": result["tokens_spent"] / wall,
        "spared_share": result["tokens_spared"]
        / (result["tokens_spared"] + result["tokens_spent"]),
        "peak_pss_bytes": peak,
        "processes": most,
        "best_val_loss": result["best_val_loss"],
        "defaults_val_loss": result["defaults_val_loss"],
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    """Run one search, or several short ones, and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default=str(ROOT / "search_spaces" / "lm.yaml"))
    parser.add_argument("--quick", action="store_true", help="three trials")
    parser.add_argument("--start", action="store_true", help="only how soon the first trial trains")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        if options.start:
            seconds = []
            for _ in range(1 + STARTS):
                seconds.append(run(options.space, Path(home), SHORT)["first_training_seconds"])
                print(f"{seconds[-1]:.2f} s", flush=True)
            numbers = {"first_training_seconds": seconds[1:], "in_a_new_home": seconds[0]}
            print(f"a trial trains after {spread(seconds[1:])} s; in a new home {seconds[0]:.3g} s")
        else:
            numbers = run(options.space, Path(home), ["--trials", "3"] if options.quick else [])
            for name, value in numbers.items():
                shown = f"{value:>16,.3f}" if isinstance(value, float) else f"{value:>16,}"
                print(f"{name:22} {shown}")
    if options.out:
        options.out.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
