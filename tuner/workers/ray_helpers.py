"""Kills the processes of a Ray session that a search on one machine does not need.

Ray 2.60 starts three of them, and no option of `ray.init` prevents it. Together they take two
seconds of a core, and `ray.init` waits until the first is up, before it starts a worker:

    dashboard.py     the dashboard; without `include_dashboard` it would only send usage statistics
    log_monitor.py   copies logs of workers to the terminal of the driver, which a search turns off
    monitor.py       the autoscaler, which asks a cloud for more machines

So they are killed as soon as they appear. `ray.init` takes a dashboard that has ended for a broken
one, writes this to its log, and continues.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
from typing_extensions import override

from tuner.home.private_folder import remove

_SCRIPTS = ("dashboard.py", "log_monitor.py", "monitor.py")
_PERIOD_SECONDS = 0.05


@contextlib.contextmanager
def without_helpers(folder: Path) -> Iterator[None]:
    """Kill the helpers of a session while the block starts Ray.

    Args:
        folder: folder of the session.
    """
    logger = logging.getLogger("ray._private.services")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it reports the end of the dashboard as an error
    killer = _Killer(folder)
    killer.start()
    try:
        yield
    finally:
        killer.ended.set()
        killer.join()
        kill_helpers(folder)
        logger.setLevel(level)


def kill_helpers(folder: Path) -> None:
    """Kill the helpers of a session that are running.

    Args:
        folder: folder of the session.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            command = child.cmdline()
            is_helper = any(Path(argument).name in _SCRIPTS for argument in command[:4])
            if is_helper and any(str(folder) in argument for argument in command):
                child.kill()


def end_processes(folder: Path, *, keep: bool) -> None:
    """Kill the processes of a session, and remove its folder.

    Args:
        folder: folder of the session.
        keep: True to keep the folder.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in argument for argument in child.cmdline()):
                workers = child.children(recursive=True)
                for process in (child, *workers):
                    process.kill()
    if not keep:
        remove(folder, attempts=2)


class _Killer(threading.Thread):
    """Kills helpers until `ended` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="ray-helpers", daemon=True)
        self._folder = folder
        self.ended = threading.Event()

    @override
    def run(self) -> None:
        while not self.ended.wait(_PERIOD_SECONDS):
            kill_helpers(self._folder)
