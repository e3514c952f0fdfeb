"""The clock by which threads and commands wait; a test passes one that advances at once."""

from __future__ import annotations

import threading
import time


class SystemClock:
    """The time of this machine, in seconds since a moment that is the same for one process."""

    def now(self) -> float:
        """Return the time, which no correction of the machine's date changes."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after some seconds."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, at most some seconds; return True if it is set."""
        return event.wait(seconds)


CLOCK = SystemClock()
