"""Attaches the report of a search to its run while the search trains.

Each report is made by a process of its own, at the lowest priority: in the driver's, the pictures
would take the time in which it answers workers. A search pays at most a fiftieth of a core for
them, and a short one nothing, as the first report comes after five minutes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.home import Home

LIVE_SECONDS = 300.0  # between two reports, at least
_SHARE = 0.02  # of a core
_POLL_SECONDS = 0.2


@contextmanager
def live_report(home: Home, name: str, seconds: float = LIVE_SECONDS) -> Iterator[None]:
    """Attach the report of a search to its run again and again during the block.

    What fails is tried again with the next report; the block learns nothing of it.

    Args:
        home: home of the search.
        name: name of the search.
        seconds: time between two reports; more if making one costs more than a fiftieth of it.
    """
    closing = threading.Event()
    thread = threading.Thread(
        target=_run, args=(home, name, seconds, closing), name="live report", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _run(home: Home, name: str, seconds: float, closing: threading.Event) -> None:
    delay = seconds
    while not closing.wait(delay):
        before = _spent()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuner.publish.live_report"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            with process.stdin as pipe:  # not as arguments: the URI may hold a password
                json.dump([str(home.root), home.tracking_uri, name], pipe)
            while process.poll() is None and not closing.wait(_POLL_SECONDS):
                pass
        except OSError:  # it has died
            pass
        finally:
            process.kill()
            process.wait()
        delay = max(seconds, (_spent() - before) / _SHARE)


def _spent() -> float:
    """Return the processor seconds of the children that ended.

    Beside workers that use all cores, a report of six such seconds takes a minute.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Attach one report, of the search that standard input names."""
    os.nice(19)
    root, uri, name = json.load(sys.stdin)
    from tuner.publish.publish import attach_report
    from tuner.trained.load_search import load_search

    home = Home(Path(root), uri)
    attach_report(home, load_search(name, home=home))
    return 0


if __name__ == "__main__":
    sys.exit(main())
