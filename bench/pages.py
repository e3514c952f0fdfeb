"""The pages of a server in a browser: how soon something is seen, and how fluent it stays.

    python bench/pages.py                          10,000 trials of 100 reports, some minutes
    python bench/pages.py --others FOLDER          the same data in MLflow's and Optuna's pages, too
    python bench/pages.py --reports 10             10,000 trials of 10 reports
    python bench/pages.py --quick                  few trials, as a test of the bench
    python bench/pages.py --out FILE.json

Chromium draws without a graphics card, and its cache is cold. The first paints are of a search of
24 trials. Then a page shows a search of many reports that runs: this process has its journal, and
appends 20 reports a second. *Frame* is the time from one frame to the next.

FOLDER has Optuna's dashboard: `pip install --target FOLDER optuna-dashboard`. MLflow and the
dashboard get the trials with the curve of their objective, in SQLite, and are looked at where they
draw curves; nothing is added meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from parts import measuring
from parts.load.searches import long_search, write_search
from parts.pages import others
from parts.pages.watched_page import Watched, watch
from playwright.sync_api import Browser, sync_playwright
from serve import TRIALS, Server

from tuner.home.home import Home
from tuner.journal.journal import Journal
from tuner.serve.pages.files import PageFiles

FULL = {"trials": 10_000, "reports": 100, "loads": 5, "seconds": 20}
QUICK = {"trials": 40, "reports": 10, "loads": 1, "seconds": 2}
GOALS = {"paint": "< 1,000 ms", "scripts": "< 300 kB", "frame": "< 50 ms"}
PER_SECOND = 20
TOGETHER = 1_000  # reports that are written at one time before
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def measure(folder: Path, size: dict[str, int], packages: Path | None) -> dict[str, Any]:
    """Return the numbers of the pages; of others, too, if there is a folder of packages."""
    home = Home.of(folder / "home")
    write_search(home, "s-0", TRIALS, 0)
    journal = Journal.open(home.search("long"))
    events = long_search(journal, size["trials"], size["reports"])
    left = PER_SECOND * (size["seconds"] + 60)  # to be reported while somebody looks
    total = size["trials"] * size["reports"]
    for _ in range(max(total // 2, total - left) // TOGETHER + 1):
        with journal.together():
            deque(islice(events, TOGETHER), 0)
    server = Server(home.root)
    try:
        begun = time.monotonic()
        server.request("GET", "/api/v1/searches/long/summary")
        read = time.monotonic() - begun
        with browser() as chromium:
            paints = {
                path: statistics.median(
                    first_paint(chromium, f"{server.url}{path}") for _ in range(size["loads"])
                )
                for path in ("/", "/searches/s-0", "/searches/s-0/trials/0")
            }
            drawn = "() => document.querySelectorAll('#trials tbody tr').length > 9"
            page = f"{server.url}/searches/long"
            with reporting(journal, events):
                own = watch(chromium, page, drawn, size["seconds"])
            calls = {
                path: statistics.median(timed(server, f"/api/v1/searches{path}") for _ in range(9))
                for path in ("", "/long", "/long/summary", f"/long/trials?since={2**52}")
            }
            memory = server.megabytes
            beside = others.measure(chromium, home, folder, packages, size) if packages else {}
    finally:
        server.close()
        journal.close()
    scripts = {n: len(data) for n, data in PageFiles.read().contents.items() if n.endswith(".js")}
    return {
        "paints": paints, "scripts": sum(scripts.values()), "read": read, "calls": calls,
        "memory": memory, "own": own._asdict(), **size,
        "others": {name: each._asdict() for name, each in beside.items()},
    }  # fmt: skip


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        chromium = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield chromium
        chromium.close()


@contextmanager
def reporting(journal: Journal, events: Iterator[None]) -> Iterator[None]:
    """Append reports to a journal all the time."""
    is_over = threading.Event()

    def report() -> None:
        while not is_over.wait(1 / PER_SECOND):
            next(events, None)

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def timed(server: Server, path: str) -> float:
    """Return the milliseconds of a request."""
    begun = time.monotonic()
    server.request("GET", path)
    return 1000 * (time.monotonic() - begun)


def first_paint(browser: Browser, url: str) -> float:
    """Return the milliseconds to the first contentful paint, without a cache."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(PAINT)
    paint = float(page.evaluate(PAINT))
    context.close()
    return paint


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result of numbers."""
    n = numbers
    own = Watched(**n["own"])
    size = f"{n['trials']:,} trials of {n['reports']} reports"
    rows = [
        *([f"first contentful paint of {path}, ms", ms, GOALS["paint"]]
          for path, ms in n["paints"].items()),
        ["JavaScript, kB", n["scripts"] / 1000, GOALS["scripts"]],
    ]  # fmt: skip
    long = [
        ["journal read after a start, s", n["read"], ""],
        ["memory of the server, MB", n["memory"], ""],
        *(
            [f"GET /searches{path.partition('=')[0]}, ms", ms, ""]
            for path, ms in n["calls"].items()
        ),
        ["first contentful paint, ms", own.paint, GOALS["paint"]],
        ["table is there after, ms", own.drawn, ""],
        ["longest frame until the curves are, too, ms", max(own.drawing), GOALS["frame"]],
        ["frame while reports come, median, ms", statistics.median(own.frames), GOALS["frame"]],
        ["the same, p95, ms", p95(own.frames), GOALS["frame"]],
        ["the same, longest, ms", max(own.frames), GOALS["frame"]],
    ]
    tables = {"A search of 24 trials": rows, f"A running search of {size}": long}
    result = measuring.plain_result("pages", about, tables, n)
    if n["others"]:
        result["tables"].append(_beside(size, own, n["others"]))
        result["notes"] = others.NOTES
    return result


def _beside(size: str, own: Watched, pages: dict[str, Any]) -> dict[str, Any]:
    sides = {"tuner serve": own, **{name: Watched(**each) for name, each in pages.items()}}
    rows = [
        [name, each.paint, each.drawn, max(each.drawing), max(each.frames, default=None)]
        for name, each in sides.items()
    ]
    columns = ["page", "first paint, ms", "drawn, ms", "longest frame, ms", "later, ms"]
    return {"title": f"{size} beside others", "columns": columns, "rows": rows}


def p95(values: list[float]) -> float:
    """Return the value below which 95 % lie."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measuring.add_options(parser, "few trials", has_picture=False)
    parser.add_argument("--others", type=Path, help="folder with optuna-dashboard")
    parser.add_argument("--reports", type=int, help="reports of each trial, instead of 100")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.reports:
        size = {**size, "reports": options.reports}
    with tempfile.TemporaryDirectory(prefix="tuner-pages-") as folder:
        numbers = measure(Path(folder), size, options.others)
    about = measuring.about(["fastapi", "playwright"], rehearsal=options.quick)
    measuring.finish(result_of(numbers, about), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
