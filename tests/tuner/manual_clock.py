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


class SharedClock(SystemClock):
    """Advances when all threads that use it wait, to the first moment for which one waits.

    Args:
        threads: number of threads that use it.
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads, self._now, self._lock = threads, 0.0, threading.Lock()
        self._waits: dict[int, tuple[float, threading.Event]] = {}  # thread → until, for

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until, thread = self._now + seconds, threading.get_ident()
        with self._lock:
            self._waits[thread] = until, event
        while self._now < until and not event.wait(_POLL_SECONDS):
            with self._lock:
                is_anybody_awake = len(self._waits) < self._threads or any(
                    until <= self._now or each.is_set() for until, each in self._waits.values()
                )
                if not is_anybody_awake:
                    self._now = min(until for until, _ in self._waits.values())
        with self._lock:
            del self._waits[thread]
        return event.is_set()

    def pass_time(self, seconds: float) -> None:
        """Let some seconds pass for the other threads."""
        self.sleep(seconds)
