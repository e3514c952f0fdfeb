"""Leaves the process of a command soon after SIGTERM or SIGHUP, whose senders soon kill it.

Ctrl-C has no time limit, but before a command works it ends the process at once as well, and it
need not wait for a Ray that has only begun to start.

Python runs a handler when its main thread comes to it, which an import or a library may delay by
seconds, and the end of a process waits for all threads, such as those of Ray. So a thread of its
own hears of the signals, and leaves by `os._exit` when their time is over. A program that only
imports `tuner` is not touched: the command line alone calls `prepare`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_SECONDS = 2.0  # 'ray job stop' kills after 3 s, 'docker stop' after 10 s
_FLUSH_SECONDS = 0.3  # nobody may read the streams any more

_actions: list[Callable[[], None]] = []
_ours: list[int] = []  # signals that end this process soon
_heard: set[int] = set()
_lock = threading.Lock()  # held for ever by the thread that leaves


def prepare() -> None:
    """Let the signals end this process: now at once, and once a command works soon.

    A signal that whoever started the process ignores, as `nohup` does, stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt_at_once)
    _ours.extend(number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL)
    for number in _ours:
        signal.signal(number, leave_at_once)
    atexit.register(_ignore)  # the first one runs last
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="leaving", daemon=True).start()


def leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal that comes before a command works: nothing is left to do."""
    os._exit(128 + number)


def interrupt_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Handle Ctrl-C that comes before or after a command works: say so, without a traceback."""
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def hasten() -> None:
    """Let the process of a command end without waiting for its threads, as after SIGTERM.

    The process of a program that only imports `tuner` goes on.
    """
    if _ours:
        _heard.add(signal.SIGINT)


def hear(number: int) -> None:
    """Note that a signal was handled."""
    if number in _ours:
        _heard.add(number)


def is_leaving() -> bool:
    """Return True if this process leaves soon, so that it need not wait for anything."""
    return bool(_heard)


@contextmanager
def on_leaving(action: Callable[[], None]) -> Iterator[None]:
    """Do an action if the process leaves while the block runs.

    Args:
        action: function that takes less than half a second.
    """
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


def end(status: int) -> NoReturn:
    """End this process: without waiting for any thread if a signal has come.

    Args:
        status: exit status of the command.
    """
    if _heard:
        _leave(status)
    sys.exit(status)


def _ignore() -> None:
    """Ignore signals while Python clears its memory: it would not handle them any more."""
    for number in _ours:
        signal.signal(number, signal.SIG_IGN)


def _watch(reader: int) -> None:
    """Leave when the time of a signal is over."""
    while True:
        for number in os.read(reader, 1):  # the handler in the kernel writes it, whoever is busy
            if number in _ours:
                _heard.add(number)
                time.sleep(_SECONDS)
                _leave(128 + number)


def _leave(status: int) -> NoReturn:
    _lock.acquire()
    for action in reversed(_actions):
        with suppress(Exception):
            action()
    flush = threading.Thread(target=_flush, args=((sys.stdout, sys.stderr),), daemon=True)
    flush.start()
    flush.join(_FLUSH_SECONDS)
    os._exit(status)


def _flush(streams: Sequence[object]) -> None:
    for stream in streams:
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()  # type: ignore[attr-defined]
