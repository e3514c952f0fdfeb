"""Defers Ctrl-C to the places where a search can end without damage."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Defer Ctrl-C: KeyboardInterrupt is raised only when the returned function is called.

    An interrupt at an arbitrary line crashes the interpreter while Ray starts, or leaves a record
    that says "running" forever. A second Ctrl-C is raised at once. Nothing changes where Ctrl-C has
    a handler of its own, and outside the main thread, which alone receives signals.
    """
    is_pending = False

    def defer(number: int, frame: FrameType | None) -> None:
        nonlocal is_pending
        is_pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if is_pending:
            raise KeyboardInterrupt

    has_default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    can_defer = has_default_handler and threading.current_thread() is threading.main_thread()
    if can_defer:
        signal.signal(signal.SIGINT, defer)
    try:
        yield check
    finally:
        if can_defer:
            signal.signal(signal.SIGINT, signal.default_int_handler)
