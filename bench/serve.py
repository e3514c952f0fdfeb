"""A server with many searches, clients and streams: what one waits for, and what it weighs.

    python bench/serve.py                   1,000 searches, 100 clients, about five minutes
    python bench/serve.py --quick           few of both, as a test of the bench
    python bench/serve.py --out FILE.json

The home has copies of the journal of a search of 24 trials. Ten of them run: this process has their
journals, and appends an event to each, once a second. Clients ask one after the other, all at one
time, on the cores that the server has. Submitted searches wait: the others have the devices.

What the server costs the drivers is measured with one on each core that always computes and appends
an event every twentieth of a second: reports per second without a server, with the server and its
streams, and without again. The clients of the bench compute on these cores, too, and those of a
team do not; so the processor time of the server is counted as well: no more can be missing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
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
CORES = min(os.cpu_count() or 1, RUNNING - 1)
SECONDS = 600.0  # longest wait
SPACE = "name: s\nbudget: {tokens: 1000}\nsearch: {seed: %d}\n"
GOALS = {
    "list": "p95 < 200 ms", "submission": "p95 < 300 ms", "event at a client": "< 2 s",
    "memory": "< 500 MB", "start": "< 3 s", "drivers": "< 3 %",
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
    def seconds(self) -> float:
        """Processor time that it has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def close(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(SECONDS)


class Drivers:
    """A driver on each core, which has one of the running searches and always computes.

    Args:
        home: home of the searches.
        names: names of their searches.
    """

    def __init__(self, home: Home, names: Sequence[str]) -> None:
        self._reports: list[float] = []  # times
        self._processes: list[subprocess.Popen[str]] = []
        self._at_work = threading.Barrier(len(names) + 1)
        for name in names:
            command, environment = measuring.module_command(
                "parts.load.driver", str(home.search(name))
            )
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
            threading.Thread(target=self._count, args=(process,), daemon=True).start()

    def _count(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        process.stdout.readline()
        self._at_work.wait(SECONDS)
        for _ in process.stdout:
            self._reports.append(time.monotonic())

    def wait(self) -> None:
        """Wait until all have reported."""
        self._at_work.wait(SECONDS)

    def rate(self, begun: float, ended: float) -> float:
        """Return the reports per second between two times of `time.monotonic`."""
        return sum(begun <= at < ended for at in self._reports) / (ended - begun)

    def rate_for(self, seconds: float) -> float:
        """Wait some seconds, and return the reports per second."""
        begun = time.monotonic()
        time.sleep(seconds)
        return self.rate(begun, time.monotonic())

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()


def make_home(home: Home, searches: int) -> list[Journal]:
    """Make searches; return the journals of those that run, but those of `Drivers`."""
    write_search(home, "s-0", TRIALS, 0)
    for number in range(1, searches):
        shutil.copytree(home.search("s-0"), home.search(f"s-{number}"))
    return [
        Journal.open(home.search(f"s-{number}")) for number in range(CORES, min(RUNNING, searches))
    ]


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
    is_over = threading.Event()

    def report() -> None:
        while not is_over.wait(1.0):
            for journal in journals:
                journal.append(MessageSent("still here"))

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        found = measure_answers(home, size)
        return {**found, **measure_drivers(home, size), **size}
    finally:
        is_over.set()
        reporter.join()
        for journal in journals:
            journal.close()


def measure_answers(home: Home, size: dict[str, int]) -> dict[str, float]:
    """Return how long clients wait."""
    server, clients = Server(home.root), ThreadPoolExecutor(size["clients"])
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
        delays = followed(server, clients, size)
        return {
            "start": server.start_seconds, "first": first[0], "list": p95(alone),
            "crowd": p95(crowded), "submission": p95(submitted), "delay": p95(delays),
            "most": max(delays), "memory": server.megabytes,
        }  # fmt: skip
    finally:
        server.close()
        clients.shutdown()


def measure_drivers(home: Home, size: dict[str, int]) -> dict[str, float]:
    """Return the reports per second of drivers without and with a server that clients look at."""
    clients = ThreadPoolExecutor(size["clients"])
    drivers = Drivers(home, [f"s-{number}" for number in range(CORES)])
    try:
        drivers.wait()
        before = drivers.rate_for(size["seconds"])
        server = Server(home.root)
        try:
            server.request("GET", "/api/v1/searches")  # reads the journals once
            begun, used = time.monotonic(), server.seconds
            followed(server, clients, size)
            ended = time.monotonic()
            share = (server.seconds - used) / (ended - begun) / (os.cpu_count() or 1)
        finally:
            server.close()
        after = drivers.rate_for(size["seconds"])
    finally:
        drivers.close()
        clients.shutdown()
    during = drivers.rate(begun, ended)
    return {"before": before, "during": during, "after": after, "share": share}


def followed(server: Server, clients: ThreadPoolExecutor, size: dict[str, int]) -> list[float]:
    """Let clients follow the running searches; return how late their events were."""
    streams = [
        clients.submit(server.events, f"s-{number % RUNNING}", size["seconds"])
        for number in range(size["clients"])
    ]
    return [each for future in streams for each in future.result()]


def result_of(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the result of numbers."""
    n = numbers
    alone = (n["before"] + n["after"]) / 2
    rows = [
        ["start, s", n["start"], GOALS["start"]],
        ["first list after the start, ms", n["first"], ""],
        ["list of the newest 100, one client, p95, ms", n["list"], GOALS["list"]],
        [f"the same, {n['clients']} clients at one time, p95, ms", n["crowd"], ""],
        ["submission, p95, ms", n["submission"], GOALS["submission"]],
        [f"event at one of {n['clients']} clients, p95, s", n["delay"], GOALS["event at a client"]],
        ["the same, the latest, s", n["most"], GOALS["event at a client"]],
        ["memory of the server, MB", n["memory"], GOALS["memory"]],
        ["reports/s of the drivers without it, the mean of before and after", alone, ""],
        [f"the same with it and {n['clients']} clients", n["during"], ""],
        ["share of the cores that it takes of them, %", 100 * n["share"], GOALS["drivers"]],
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
