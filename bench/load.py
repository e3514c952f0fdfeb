"""How much a home holds: many submitters on one store, many trials in a search, many searches.

    python bench/load.py                    all parts, about 20 minutes on two cores
    python bench/load.py --quick            few searches and trials, as a test of the bench
    python bench/load.py --parts teams homes
    python bench/load.py --page docs/bench/load.md --out FILE.json

    teams    50 searches recorded in one store by 8 submitters at one time
    trials   commands on a search of 10,000 trials
    homes    commands in a home with a hundred searches, beside one that never had a search

Nothing is trained: a conductor decides, a formula makes the reports, and the journal is that of a
driver (parts/load/searches.py). Submitters and the large search are recorded as `tuner sync` does
it, with a report; with --work a large search that is there already is not made again. Seconds,
processor time and memory are those of the whole process of a command, its children included; memory
is the largest of any of its processes. Each number is the best of --repeat commands, except what is
done once.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parts import measuring
from parts.load.searches import space_of, write_search
from tuner.driver.catch_up import send_trials
from tuner.journal.journaled_search import JournaledSearch
from tuner.tracking.tracker import Tracker

from tuner.home import Home
from tuner.journal.journal import read_journal
from tuner.tracking.record import Record
from tuner.tracking.runs import RunSettings
from tuner.tracking.tags import Tag

TEAMS = {"searches": 50, "submitters": 8, "trials": 12}
TRIALS, SEARCHES = 10_000, 100
QUICK_TEAMS = {"searches": 4, "submitters": 2, "trials": 4}
QUICK_TRIALS, QUICK_SEARCHES = 60, 5
SECONDS = 3000.0  # longest command
Row = list[Any]
SUBMITTER = """
import sys
from tuner.driver.sync import sync
from tuner.home import Home
home = Home.at(sys.argv[1])
for name in sys.argv[2:]:
    sync(home, name)
"""
READ = """
import sys, time
from tuner.home import Home
from tuner.tracking.record import Record
import mlflow
began = time.perf_counter()
home = Home.at(sys.argv[1])
{search.name for search in Record(home.tracking_uri).searches()}
print(time.perf_counter() - began)
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


def record(home: Home, name: str) -> None:
    """Record a search, without a model or a report."""
    search = JournaledSearch.of(read_journal(home.search(name)))
    assert search is not None
    tags = {Tag.METRIC: "val_loss"}
    tracker = Tracker(RunSettings(home.tracking_uri, home.artifacts, search.space.name, name, tags))
    send_trials(tracker, search, unfinished="interrupted")
    tracker.finish("finished", {"trials": float(len(search.trials))}, None)


def best_of(repeat: int, run: Callable[[], Cost]) -> Cost:
    """Return the least of several costs: whatever else the machine does only adds to them."""
    costs = [run() for _ in range(repeat)]
    return Cost(
        min(c.seconds for c in costs), min(c.cpu for c in costs), min(c.megabytes for c in costs)
    )


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
        cost = best_of(repeat, partial(cost_of, command(root, *arguments)))
        title = " ".join(arguments[:3] if arguments[0] != "report" else arguments[:1])
        yield [title, cost.seconds, cost.cpu, cost.megabytes]


def many_searches(folder: Path, searches: int, repeat: int) -> Iterator[Row]:
    """Run commands in a home with many searches and in a new one, by turns."""
    full, empty = folder / "full", folder / "empty"
    home = Home.at(full)
    for number in range(searches):
        write_search(home, f"past-{number:03d}", 4, number)
        record(home, f"past-{number:03d}")
    Home.at(empty)
    Record(Home.of(empty).tracking_uri)  # makes a store without searches
    for arguments in (("list",), ("status",)):
        sides = {str(root): partial(cost_of, command(root, *arguments)) for root in (full, empty)}
        costs = measuring.by_turns(sides, repeat)
        for root, what in ((full, f"{searches} searches"), (empty, "no search")):
            least = min(costs[str(root)], key=lambda cost: cost.seconds)
            title = f"{arguments[0]}, {what}"
            yield [title, least.seconds, least.cpu, least.megabytes]
    for root, what in ((full, f"{searches} searches"), (empty, "no search")):
        seconds = min(opened(folder, root) for _ in range(repeat))
        yield [f"search until Ray starts, {what}", seconds, None, None]
        seconds = min(read(root) for _ in range(repeat))
        yield [f"its store, opened while Ray starts, {what}", seconds, None, None]


def read(root: Path) -> float:
    """Return the seconds in which a search opens the store of a home and reads its names."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root)], capture_output=True, text=True, check=True,
        env=environment(),
    )  # fmt: skip
    return float(done.stdout)


def opened(folder: Path, root: Path) -> float:
    """Return the seconds until a search of a home starts Ray; then it is killed."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    (texts / "a.txt").write_text("the quick fox jumps over a lazy dog and runs, " * 500)
    space_of(folder, 2, 0)
    space = folder / "load-2-0.yaml"
    text = space.read_text(encoding="utf-8")
    data = f"data: {{files: {texts}, validation_fraction: 0.2}}\ntokenizer: {{vocab_size: 300}}\n"
    (folder / "open.yaml").write_text(text.replace("\nmodel:", f"\n{data}model:"), encoding="utf-8")
    arguments = ("search", "--space", str(folder / "open.yaml"), "--workers", "1")
    began = time.perf_counter()
    with subprocess.Popen(
        command(root, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("starting Ray"):
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise SystemExit("".join(lines))


def page(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    about = result["about"]
    lines = [
        "# How much a home holds", "",
        "Searches that nobody trained, recorded in a SQLite store and read back by the commands. "
        "Memory is the largest of a command's processes. Every command imports MLflow, which takes "
        "two seconds and 250 MB, except `status`, which reads journals alone.", "",
    ]  # fmt: skip
    for table in result["tables"]:
        lines += [f"## {table['title']}", "", "| | seconds | processor, s | memory, MB |"]
        lines += ["|---|---:|---:|---:|"]
        for what, *numbers in table["rows"]:
            cells = ["" if n is None else f"{n:,.1f}" if n < 100 else f"{n:,.0f}" for n in numbers]
            lines.append(f"| {what} | {' | '.join(cells)} |")
        lines.append("")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines += [
        f"`{about['command']}`, {about['date']}, {about['device']}, {about['cores']} cores, load "
        f"{about['load']}; {versions}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=("teams", "trials", "homes"))
    parser.add_argument("--trials", type=int, default=TRIALS, help="of the large search")
    parser.add_argument("--repeat", type=int, default=3, help="commands of each kind")
    parser.add_argument("--quick", action="store_true", help="few searches and trials")
    parser.add_argument("--work", type=Path, help="folder for the homes (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--page", type=Path, help="write the page")
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
    columns = ["what", "seconds", "processor seconds", "MB"]
    tables = []
    for part in options.parts or parts:
        title, rows = parts[part]
        tables.append({"title": title, "columns": columns, "rows": []})
        for row in rows():
            tables[-1]["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    result = {
        "bench": "load", "about": measuring.about(["mlflow", "plotly", "optuna"]),
        "tables": tables, "goals": [], "notes": [], "numbers": {},
    }  # fmt: skip
    measuring.finish(result, options.out, lambda path: None, None)
    if options.page:
        options.page.write_text(page(result), encoding="utf-8")
    if options.work is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
