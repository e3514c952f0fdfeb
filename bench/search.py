"""What a search costs: wall time, memory at its peak, share of the time spent inside training.

    python bench/search.py                  the default search, as `make search` runs it
    python bench/search.py --quick          three trials, so that CI sees that this still works
    python bench/search.py --out FILE.json  also write the numbers

Memory is the proportional set size (PSS) of all processes of the search, Ray's included, summed
every two seconds; Linux only.
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

from memory import descendants, pss_bytes

ROOT = Path(__file__).resolve().parents[1]
PERIOD_SECONDS = 2.0  # reading the memory of big processes takes time itself


def main() -> int:
    """Run one search and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default=str(ROOT / "search_spaces" / "lm.yaml"))
    parser.add_argument("--quick", action="store_true", help="three trials")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "tuner", "search", "--json", "--home", home]
        command += ["--space", options.space, *(["--trials", "3"] if options.quick else [])]
        began = time.monotonic()
        with Path(home, "log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )
            peak, most, first_report = 0, 0, 0.0
            while process.poll() is None:
                pids = descendants(process.pid)
                peak, most = max(peak, pss_bytes(pids)), max(most, len(pids))
                if not first_report and "report 1/" in Path(home, "log").read_text():
                    first_report = time.monotonic() - began
                time.sleep(PERIOD_SECONDS)
        wall = time.monotonic() - began
        out = process.stdout.read() if process.stdout else ""
        if process.returncode:
            print(Path(home, "log").read_text(), file=sys.stderr)
            return 1
    result = json.loads(out.splitlines()[-1])
    numbers = {
        "wall_seconds": wall,
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
    for name, value in numbers.items():
        print(
            f"{name:22} {value:>16,.3f}" if isinstance(value, float) else f"{name:22} {value:>16,}"
        )
    if options.out:
        options.out.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
