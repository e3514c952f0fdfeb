"""Ends a search that another process runs, also on another machine that shares the home."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import no_search
from tuner.lease.folder import is_running, newest
from tuner.lease.holder import Holder
from tuner.lease.stop_request import StopRequest, request_stop

# The driver looks once a second, and the reports under way may take longer.
_PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.2


def stop(
    name: str,
    home: Home,
    *,
    now: bool = False,
    on_wait: Callable[[Holder], None] = lambda holder: None,
) -> None:
    """Ask the driver of a search to end it, and wait until it has; it can go on later.

    Args:
        name: name of the search.
        home: home of the search.
        now: True to lose what was trained since the last reports, instead of waiting for the next.
        on_wait: called once with the driver that is asked.

    Raises:
        TunerError: if the home has no such search, nothing runs it, it cannot be asked, or it does
            not answer.
    """
    folder = home.search(name)
    if not folder.is_dir():
        raise no_search(name, home)
    holder = newest(folder)
    if holder is None or not is_running(folder):
        raise TunerError(f"nothing runs {name}, so there is nothing to stop")
    try:
        request_stop(folder, holder, StopRequest.NOW if now else StopRequest.SOON)
    except OSError as error:
        raise TunerError(
            f"cannot ask the driver of {name} to stop: {error.strerror}: {error.filename}; you "
            f"must be able to write to {folder}, or stop {holder.text}, there"
        ) from error
    on_wait(holder)
    if not _has_ended(folder, holder):
        raise TunerError(
            f"{name} did not end within {_PATIENCE_SECONDS:.0f} s: {holder.text}, does not answer; "
            f"stop it there by 'kill {holder.pid}'"
        )


def _has_ended(folder: Path, holder: Holder) -> bool:
    """Wait until a driver has ended; return False if it does not."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        now = newest(folder)
        if now is None or now.epoch != holder.epoch or now.has_ended or not is_running(folder):
            return True
        time.sleep(_POLL_SECONDS)
    return False
