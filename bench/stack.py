"""Reports a second through the servers of docker/compose.yaml, and what a slow one costs a search.

    python bench/stack.py                  as shipped, without a cache of passwords, without login
    python bench/stack.py --quick          as shipped, for a second: a test of the bench
    python bench/stack.py --out FILE.json  also write the result

Postgres, S3, MLflow and nginx run as processes with the settings of compose.yaml. A client is a
process of its own that records reports of one trial in the way of a search, and waits for each: a
search sends reports that have come together in one request, and nobody waits for them. All share
the cores of this machine.

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

from parts.measuring import ROOT, about, add_options, finish, goal, module_command
from parts.stack.client import RecordedSearch

sys.path.append(str(ROOT))
from tests.e2e.compose_servers import Stack, missing, running

USER = ("bench", "password-of-the-bench")
# name → what is unlike the shipped stack
VARIANTS: dict[str, dict[str, bool]] = {
    "as shipped": {},
    "no cache of passwords": {"has_cache": False},
    "no login": {"has_login": False},
}
SLOW_REPORTS = 200
ASLEEP, MOST_MS = "ms of a report while the server sleeps", 0.1


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


def slow_server(stack: Stack, seconds: float) -> dict[str, float]:
    """Return the deciding thread's milliseconds for a report while MLflow sleeps, and awake."""
    with tempfile.TemporaryDirectory() as folder:
        search = RecordedSearch("slow", Path(folder))

        def milliseconds(first: int) -> float:
            begun = time.perf_counter()
            for step in range(first, first + SLOW_REPORTS):
                search.report(step)
            return 1e3 * (time.perf_counter() - begun) / SLOW_REPORTS

        awake = milliseconds(2)
        with stack.suspended("mlflow"):
            asleep = milliseconds(SLOW_REPORTS + 2)
            time.sleep(seconds)
        search.flush()
        sent = search.mlflow.num_metrics
        search.finish()
    assert sent >= 2 * SLOW_REPORTS, "reports were lost"
    return {"asleep": asleep, "awake": awake}


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: variant → reports a second of one client and of four; and, as `slow`, milliseconds
            of a report by the state of the server.
        about: `measuring.about`.
    """
    slow = numbers["slow"]
    rates = [[name, *numbers["rates"][name]] for name in VARIANTS if name in numbers["rates"]]
    what = "A report, in the thread that decides"
    return {
        "bench": "stack",
        "about": about,
        "tables": [
            {
                "title": "Reports a second",
                "columns": ["stack", "1 client", "4 clients"],
                "rows": rates,
            },
            {"title": what, "columns": ["server", "ms"], "rows": [*map(list, slow.items())]},
        ],
        "goals": [] if about["rehearsal"] else [goal(ASLEEP, slow["asleep"], most=MOST_MS)],
        "notes": [],
        "numbers": numbers,
    }


def main() -> int:
    """Measure the variants, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    add_options(parser, "as shipped, for a second", has_picture=False)
    options = parser.parse_args()
    if (reason := missing()) is not None:
        print(f"{reason}; install it", file=sys.stderr)
        return 2
    seconds = 1.0 if options.quick else options.seconds
    numbers: dict[str, Any] = {"rates": {}, "slow": {}}
    for name, changes in VARIANTS.items() if not options.quick else [("as shipped", {})]:
        with running(**changes) as stack:
            user = USER if changes.get("has_login", True) else None
            if user is not None:
                stack.add_user(*user)
            environment = stack.variables(*user) if user else stack.variables()
            numbers["rates"][name] = [
                reports_per_second(stack, environment, n, seconds) for n in (1, 4)
            ]
            if name == "as shipped":
                os.environ.update(environment)
                numbers["slow"] = slow_server(stack, seconds)
    finish(result_of(numbers, about(["mlflow"], rehearsal=options.quick)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
