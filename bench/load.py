"""How much a home holds: many submitters on one store, many trials in a search, many searches.

    python bench/load.py                    all parts, about 20 minutes on two cores
    python bench/load.py --quick            few searches and trials, as a test of the bench
    python bench/load.py --parts teams homes
    python bench/load.py --out FILE.json

    teams    50 searches recorded in one store by 8 submitters at one time
    trials   commands on a search of 10,000 trials
    homes    commands in a home with a hundred searches, beside one that never had a search

Nothing is trained: a conductor decides, a formula makes the reports, and the journal is that of a
driver. The store is SQLite. Submitters and the large search are recorded as `tuner sync` does it,
with a report. Seconds, processor time and memory are those of the whole process of a command, its
children included; memory is the largest of any of its processes. Every command imports MLflow,
which takes two seconds and 250 MB, except `status`, which reads journals alone. Each number is the
best of several commands, except what is done once.

    With --work a large search that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parts import measuring
from parts.load.searches import write_search

from tuner.home.home import Home
from tuner.tracking.record import Record

TEAMS = {"searches": 50, "submitters": 8, "trials": 12}
TRIALS, SEARCHES = 10_000, 100
QUICK_TEAMS = {"searches": 4, "submitters": 2, "trials": 4}
QUICK_TRIALS, QUICK_SEARCHES = 60, 5
SECONDS = 3000.0  # longest command
Row = list[Any]
SUBMITTER = """
import sys
from tuner.driver.sync import sync
from tuner.home.home import Home
home = Home.at(sys.argv[1])
for name in sys.argv[2:]:
    sync(home, name)
"""
# A small process that runs a command: the memory of a child begins with that of its parent.
MEASURED = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
u = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - began, u.ru_utime + u.ru_stime, u.ru_maxrss / 1e3]))
sys.exit(status)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: wall time.
        cpu: processor time, in seconds.
        megabytes: largest resident memory of one of its processes.
    """

    seconds: float
    cpu: float
    megabytes: float


def environment() -> dict[str, str]:
    """Return the environment of a command: that of a user, with this checkout."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "TUNER"))}
    path = os.pathsep.join(filter(None, [str(measuring.ROOT), os.environ.get("PYTHONPATH")]))
    return {**plain, "PYTHONPATH": path}


def command(home: Path, *arguments: str) -> list[str]:
    """Return a command of `tuner` in a home."""
    return [sys.executable, "-m", "tuner", *arguments, "--home", str(home)]


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command, and return what it took.

    Raises:
        SystemExit: if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=False,
        env=environment(), timeout=SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def least(costs: Iterable[Cost]) -> Cost:
    """Return the shortest of several runs: whatever else the machine does only adds to it."""
    return min(costs, key=lambda cost: cost.seconds)


def teams(folder: Path, searches: int, submitters: int, trials: int) -> Iterator[Row]:
    """Record many searches in one store at one time, and check that it has all of them."""
    root = folder / "teams"
    home = Home.at(root)
    names = [f"team-{number:02d}" for number in range(searches)]
    for number, name in enumerate(names):
        write_search(home, name, trials, number)
    Record(home.tracking_uri)  # makes the store
    commands = [
        [sys.executable, "-c", SUBMITTER, str(root), *names[first::submitters]]
        for first in range(submitters)
    ]
    began = time.perf_counter()
    with ThreadPoolExecutor(submitters) as pool:
        costs = list(pool.map(cost_of, commands))
    seconds = time.perf_counter() - began
    store = Record(home.tracking_uri)
    counts = [len(store.run_ids(store.search(name))) for name in names]
    if any(count < trials for count in counts):
        raise SystemExit(f"the store lacks trials: {counts}")
    title = f"{searches} searches by {submitters} submitters"
    yield [title, seconds, sum(c.cpu for c in costs), max(c.megabytes for c in costs)]
    one = cost_of([sys.executable, "-c", SUBMITTER, str(root), names[0]])
    yield ["one of them again, when nothing is missing", one.seconds, one.cpu, one.megabytes]


def many_trials(folder: Path, trials: int, repeat: int) -> Iterator[Row]:
    """Run commands on one large search."""
    root = folder / "trials"
    if not root.is_dir():  # of an earlier run: MLflow takes 45 ms for each trial
        write_search(Home.at(root), "big", trials, 0)
        once = cost_of(command(root, "sync", "big"))
        yield ["sync, of all of it", once.seconds, once.cpu, once.megabytes]
    for arguments in (
        ("sync", "big"), ("list",), ("status",), ("show", "--search", "big"),
        ("show", f"big/{trials // 2}"),
        ("report", "--search", "big", "--out", str(folder / "report.html")),
    ):  # fmt: skip
        cost = least(cost_of(command(root, *arguments)) for _ in range(repeat))
        title = " ".join(arguments[:3] if arguments[0] != "report" else arguments[:1])
        yield [title, cost.seconds, cost.cpu, cost.megabytes]


def many_searches(folder: Path, searches: int, repeat: int) -> Iterator[Row]:
    """Run commands in a home with many searches and in a new one, by turns."""
    full, empty = folder / "full", folder / "empty"
    names = [f"past-{number:03d}" for number in range(searches)]
    for number, name in enumerate(names):
        write_search(Home.at(full), name, 4, number)
    cost_of([sys.executable, "-c", SUBMITTER, str(full), *names])
    Home.at(empty)
    Record(Home.of(empty).tracking_uri)  # makes a store without searches
    for arguments in (("list",), ("status",)):
        sides = {str(root): partial(cost_of, command(root, *arguments)) for root in (full, empty)}
        costs = measuring.by_turns(sides, repeat)
        for root, what in ((full, f"{searches} searches"), (empty, "no search")):
            cost = least(costs[str(root)])
            yield [f"{arguments[0]}, {what}", cost.seconds, cost.cpu, cost.megabytes]


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`; numbers have title and rows by part."""
    columns = ["", "seconds", "processor, s", "memory, MB"]
    return {
        "bench": "load",
        "about": about,
        "tables": [{"columns": columns, **part} for part in numbers.values()],
        "goals": [],
        "notes": [],
        "numbers": numbers,
    }


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=("teams", "trials", "homes"))
    parser.add_argument("--trials", type=int, default=TRIALS, help="of the large search")
    parser.add_argument("--repeat", type=int, default=3, help="commands of each kind")
    parser.add_argument("--work", type=Path, help="folder for the homes (default: a temporary one)")
    measuring.add_options(parser, "few searches and trials", has_picture=False)
    options = parser.parse_args()
    quick, repeat = options.quick, 1 if options.quick else options.repeat
    trials = QUICK_TRIALS if quick else options.trials
    searches = QUICK_SEARCHES if quick else SEARCHES
    team = QUICK_TEAMS if quick else TEAMS
    folder = options.work or Path(tempfile.mkdtemp(prefix="tuner-load-"))
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
        "teams": (
            f"One store, {team['submitters']} submitters, searches of {team['trials']} trials",
            lambda: teams(folder, **team),
        ),
        "trials": (
            f"A search of {trials:,} trials", lambda: many_trials(folder, trials, repeat)
        ),
        "homes": (
            f"A home with {searches} searches", lambda: many_searches(folder, searches, repeat)
        ),
    }  # fmt: skip
    numbers = {}
    for part in options.parts or parts:
        title, rows = parts[part]
        numbers[part] = {"title": title, "rows": list[Row]()}
        for row in rows():
            numbers[part]["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    about = measuring.about(["mlflow", "plotly", "optuna"], rehearsal=options.quick)
    measuring.finish(result_of(numbers, about), options)
    if options.work is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
