"""Reports a second through the servers of docker/compose.yaml, and what a slow one costs a search.

    python bench/stack.py                  as shipped, without a cache of passwords, without login
    python bench/stack.py --quick          as shipped, for a second: a test of the bench
    python bench/stack.py --out FILE.json  also write the numbers

Postgres, S3, MLflow and nginx run as processes with the settings of compose.yaml
(parts/stack/servers.py). A client is a process of its own that records reports of one trial in the
way of a search, and waits for each: a search sends reports that have come together in one request,
and nobody waits for them. All share the cores of this machine.

*Slow server*: MLflow sleeps (SIGSTOP) while a search has reports for it. The cost is the time of
the thread that decides about trials, for one report; the server gets the reports when it wakes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts.measuring import about, goal, module_command, show, write
from parts.stack.client import begin, report
from parts.stack.servers import Stack, missing, running

USER = ("bench", "password-of-the-bench")
# name → what is unlike the shipped stack
VARIANTS: dict[str, dict[str, bool]] = {
    "as shipped": {},
    "no cache of passwords": {"has_cache": False},
    "no login": {"has_login": False},
}
SLOW_REPORTS = 200


def reports_per_second(stack: Stack, environment: dict[str, str], clients: int, s: float) -> float:
    """Return the reports a second of some clients together."""
    processes = []
    for number in range(clients):
        name = f"bench-{clients}-{number}"
        command, base = module_command("parts.stack.client", name, str(s))
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(
                command, env={**base, **environment}, stdin=pipe, stdout=pipe, text=True
            )
        )
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    rate = 0.0
    for process in processes:
        assert process.stdout is not None
        count, seconds = process.stdout.readline().split()
        rate += int(count) / float(seconds)
    for process in processes:
        assert process.wait(60) == 0
    return rate


def slow_server(stack: Stack, seconds: float) -> tuple[float, float]:
    """Return the deciding thread's milliseconds for a report while MLflow sleeps, and awake."""
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        tracker = begin("slow", Path(folder))
        for state in ("awake", "asleep"):
            first = 2 if state == "awake" else SLOW_REPORTS + 2

            def send(first: int = first) -> float:
                begun = time.perf_counter()
                for step in range(first, first + SLOW_REPORTS):
                    tracker.log_report(0, report(step))
                return 1e3 * (time.perf_counter() - begun) / SLOW_REPORTS

            if state == "awake":
                costs[state] = send()
            else:
                with stack.suspended("mlflow"):
                    costs[state] = send()
                    time.sleep(seconds)
            tracker.flush()
        sent = tracker.num_metrics
        tracker.finish("finished", {}, None)
    assert sent >= 2 * SLOW_REPORTS, "reports were lost"
    return costs["asleep"], costs["awake"]


def main() -> int:
    """Measure the variants, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    if (reason := missing()) is not None:
        print(f"{reason}; install it", file=sys.stderr)
        return 2
    seconds = 1.0 if options.quick else options.seconds
    rows: list[list[Any]] = []
    slow = (0.0, 0.0)
    for name, changes in VARIANTS.items() if not options.quick else [("as shipped", {})]:
        with running(**changes) as stack:
            user = USER if changes.get("has_login", True) else None
            if user is not None:
                stack.add_user(*user)
            environment = stack.variables(*user) if user else stack.variables()
            rates = [reports_per_second(stack, environment, n, seconds) for n in (1, 4)]
            rows.append([name, *rates])
            if name == "as shipped":
                os.environ.update(environment)
                slow = slow_server(stack, seconds)
    result = {
        "about": about(["mlflow"]),
        "tables": [
            {
                "title": "Reports a second",
                "columns": ["stack", "1 client", "4 clients"],
                "rows": rows,
            },
            {
                "title": "A report, in the thread that decides (ms)",
                "columns": ["server", "ms"],
                "rows": [["asleep", slow[0]], ["awake", slow[1]]],
            },
        ],
        "goals": [goal("ms of a report while the server sleeps", slow[0], most=0.1)],
        "notes": [],
    }
    show(result)
    if options.out:
        write(result, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
