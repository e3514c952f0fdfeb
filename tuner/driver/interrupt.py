"""Ctrl-C, acted on only where a search can end well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Within the block Ctrl-C is noted, and raised where what this gives is called.

    Raised at any line it crashes the interpreter in the middle of Ray's start, or leaves a record
    that says "running" for ever. A second Ctrl-C is raised at once. Where Ctrl-C already means
    something else, and outside the main thread, which alone can be interrupted, nothing changes.
    """
    is_noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal is_noted
        is_noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if is_noted:
            raise KeyboardInterrupt

    is_raised = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    is_ours = is_raised and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
