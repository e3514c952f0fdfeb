"""A server as its operator has it: a process, a real search, a kill in between."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.conftest import Workplace, make_workplace
from tests.ports import free_port
from tuner.journal.journal import read_journal

pytestmark = pytest.mark.slow


@contextmanager
def serving(place: Workplace, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server that answers."""
    server = place.start("serve", "--port", str(port), "--data", "texts", "--devices", "1")
    try:
        until = time.monotonic() + 60
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
                break
            assert server.poll() is None, server.stderr and server.stderr.read()
            assert time.monotonic() < until
        yield server
    finally:
        server.kill()
        server.communicate()


def test_search_goes_on_while_servers_come_and_go(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = make_workplace(tmp_path_factory.mktemp("serve"))
    port = free_port()
    root = f"http://127.0.0.1:{port}/api/v1/searches"
    space = (place.folder / "small.yaml").read_text()
    space = space.replace("trials: 6", "trials: 3").replace("{top: 2, seeds: 2}", "off")
    space = space.replace("tokens: 12000", "tokens: 100_000")  # it is edited as it trains
    space = space.replace("files: texts", f"files: {place.folder / 'texts'}")

    def post(path: str, data: str = "") -> dict[str, object]:
        with urllib.request.urlopen(f"{root}{path}", data.encode(), timeout=60) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    with serving(place, port) as server:
        submitted = post("?name=a", space)
        assert submitted["state"] in {"waiting", "starting"}
        events = urllib.request.urlopen(f"{root}/a/events", timeout=120)
        for line in events:
            if b'"event":"report"' in line:
                break
        edited = post("/a/edit", space.replace("α_max: {log: [1e-3,", "α_max: {log: [2e-3,"))
        assert edited["state"] == "running"
        server.kill()  # -9
    seen = []
    with serving(place, port) as server, urllib.request.urlopen(
        urllib.request.Request(f"{root}/a/events", headers={"Last-Event-ID": "3"}), timeout=300
    ) as events:  # fmt: skip
        for line in events:
            if line.startswith(b"id: "):
                seen.append(int(line[4:]))
        with urllib.request.urlopen(f"{root}/a", timeout=60) as answer:
            ended = json.load(answer)
        wish = urllib.request.Request(
            f"{root}/a/operations", b'{"kind": "replay", "trial": 2}',
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(wish, timeout=60) as answer:
            replay = json.load(answer)
        operation = f"{root.removesuffix('/searches')}/operations/{replay['id']}"
        until = time.monotonic() + 300
        while replay["state"] in {"waiting", "running"}:
            assert time.monotonic() < until
            threading.Event().wait(0.2)
            with urllib.request.urlopen(operation, timeout=60) as answer:
                replay = json.load(answer)
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
        assert server.returncode == 0, log
    assert (ended["state"], ended["trials_done"]) == ("finished", ended["trials"])
    assert replay["result"]["verdict"] == "bit-exact", replay
    assert seen == [*range(4, len(seen) + 4)], "nothing was lost"
    kinds = [event.event for event in read_journal(place.home / "searches" / "a")]
    assert kinds.count("session") == kinds.count("edit") == 1, "it was edited as it ran"
    assert "trial" in kinds[kinds.index("edit") :], "trial 2 is of the edited space"
    logged = place.tuner("logs", "a").out
    assert logged.count("tuner search, a") == 1, "nothing ran twice"
    assert "the server has ended; drivers go on" in log
