"""A server with many searches, clients and streams: what one waits for, and what it weighs.

    python bench/serve.py                   1,000 searches, 100 clients, about five minutes
    python bench/serve.py --quick           few of both, as a test of the bench
    python bench/serve.py --out FILE.json

The home has copies of the journal of a search of 24 trials. Ten of them run: this process has their
journals, and appends an event to each, once a second. Clients ask one after the other, all at one
time, on the cores that the server has. Submitted searches wait: the others have the devices.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from parts import measuring
from parts.load.searches import write_search

from tuner.home.home import Home
from tuner.journal.events import MessageSent
from tuner.journal.journal import Journal

FULL = {"searches": 1000, "clients": 100, "requests": 5, "submitted": 20, "seconds": 10}
QUICK = {"searches": 20, "clients": 4, "requests": 3, "submitted": 4, "seconds": 2}
RUNNING, TRIALS = 10, 24
SECONDS = 600.0  # longest wait
SPACE = "name: s\nbudget: {tokens: 1000}\nsearch: {seed: %d}\n"
GOALS = {
    "list": "p95 < 200 ms", "submission": "p95 < 300 ms", "event at a client": "< 2 s",
    "memory": "< 500 MB", "start": "< 3 s",
}  # fmt: skip


class Server:
    """A `tuner serve` of a home, in a process of its own.

    Args:
        home: folder of the home.
    """

    def __init__(self, home: Path) -> None:
        begun = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "tuner", "serve", "--home", str(home), "--devices", "1"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.process.stderr.readline()  # that it listens
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.request("GET", "/healthz")
        self.start_seconds = time.monotonic() - begun

    def request(self, method: str, path: str, body: str | None = None) -> bytes:
        """Return the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with suppress(ConnectionError):
            connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status < 300, (answer.status, data)
        return data

    def events(self, name: str, seconds: float) -> list[float]:
        """Follow a search for some seconds; return how late its new events were."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.request("GET", f"/api/v1/searches/{name}/events")
        answer = connection.getresponse()
        until, delays, begun = time.time() + seconds, [], time.time()
        while time.time() < until:
            line = answer.readline()
            if line.startswith(b"data: ") and b'"event":"message"' in line:
                written = json.loads(line[6:])["time_ms"] / 1000
                if written > begun:
                    delays.append(time.time() - written)
        connection.close()
        return delays

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(SECONDS)


def make_home(home: Home, searches: int) -> list[Journal]:
    """Make searches; return the journals of those that run."""
    write_search(home, "s-0", TRIALS, 0)
    for number in range(1, searches):
        shutil.copytree(home.search("s-0"), home.search(f"s-{number}"))
    return [Journal.open(home.search(f"s-{number}")) for number in range(min(RUNNING, searches))]


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Return the milliseconds of some calls, one after the other."""
    took = []
    for _ in range(count):
        begun = time.monotonic()
        call()
        took.append(1000 * (time.monotonic() - begun))
    return took


def p95(values: Sequence[float]) -> float:
    """Return the value below which 95 % lie."""
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def measure(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """Return the numbers of a server."""
    home = Home.of(folder / "home")
    journals = make_home(home, size["searches"])
    server = Server(home.root)
    is_over = threading.Event()

    def report() -> None:
        while not is_over.wait(1.0):
            for journal in journals:
                journal.append(MessageSent("still here"))

    reporter = threading.Thread(target=report)
    reporter.start()
    clients = ThreadPoolExecutor(size["clients"])
    try:
        first = timed(lambda: server.request("GET", "/api/v1/searches"), 1)
        alone = timed(lambda: server.request("GET", "/api/v1/searches"), 20)
        crowd = [
            clients.submit(
                timed, lambda: server.request("GET", "/api/v1/searches"), size["requests"]
            )
            for _ in range(size["clients"])
        ]
        crowded = [each for future in crowd for each in future.result()]
        seeds = iter(range(size["submitted"]))
        submitted = timed(
            lambda: server.request("POST", "/api/v1/searches", SPACE % next(seeds)),
            size["submitted"],
        )
        streams = [
            clients.submit(server.events, f"s-{number % len(journals)}", size["seconds"])
            for number in range(size["clients"])
        ]
        delays = [each for future in streams for each in future.result()]
        return {
            "start": server.start_seconds, "first": first[0], "list": p95(alone),
            "crowd": p95(crowded), "submission": p95(submitted), "delay": p95(delays),
            "most": max(delays), "memory": server.megabytes, **size,
        }  # fmt: skip
    finally:
        is_over.set()
        reporter.join()
        server.close()
        clients.shutdown()
        for journal in journals:
            journal.close()


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result of numbers."""
    n = numbers
    rows = [
        ["start, s", n["start"], GOALS["start"]],
        ["first list after the start, ms", n["first"], ""],
        ["list of the newest 100, one client, p95, ms", n["list"], GOALS["list"]],
        [f"the same, {n['clients']} clients at one time, p95, ms", n["crowd"], ""],
        ["submission, p95, ms", n["submission"], GOALS["submission"]],
        [f"event at one of {n['clients']} clients, p95, s", n["delay"], GOALS["event at a client"]],
        ["the same, the latest, s", n["most"], GOALS["event at a client"]],
        ["memory of the server, MB", n["memory"], GOALS["memory"]],
    ]
    title = f"A server with {n['searches']:,} searches, {RUNNING} of them running"
    return measuring.plain_result("serve", about, {title: rows}, numbers)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measuring.add_options(parser, "few searches and clients", has_picture=False)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-serve-") as folder:
        numbers = measure(Path(folder), QUICK if options.quick else FULL)
    about = measuring.about(["fastapi", "uvicorn", "sqlalchemy"], rehearsal=options.quick)
    measuring.finish(result_of(numbers, about), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
