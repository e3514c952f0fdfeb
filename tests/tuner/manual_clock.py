"""A clock that advances only when somebody sleeps, at once."""

from __future__ import annotations

import threading

from tuner.clock import SystemClock

_POLL_SECONDS = 0.001


class ManualClock(SystemClock):
    """`sleep` advances it and returns at once; `wait`, of other threads, lasts until it advanced.

    Attributes:
        slept: seconds by which it has advanced.
    """

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until = self.slept + seconds
        while self.slept < until and not event.wait(_POLL_SECONDS):
            pass
        return event.is_set()
