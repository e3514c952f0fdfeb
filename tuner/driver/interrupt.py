"""Signals that end a search: Ctrl-C, SIGTERM (a job scheduler) and SIGHUP (a closed terminal).

A signal at an arbitrary line would leave a record that says "running" forever, so a search defers
signals to the places where it can end without damage.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from tuner import leaving
from tuner.errors import Interrupted, Replaced, signal_text

if TYPE_CHECKING:
    from tuner.driver.view import View

_ANNOUNCING_SECONDS = 5.0  # a reader of the output that is stopped must not keep the command
_SIGNALS = (signal.SIGINT, *leaving.SIGNALS)
# What a program does unless it, or whoever started it, has chosen otherwise: `nohup` and the
# background jobs of a shell ignore some signals.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Interrupts:
    """Signals that are deferred.

    Args:
        announce: function to call with the number of the first signal, at once, in another thread.

    Attributes:
        announce: that function; may be replaced.
        signal: number of the first signal; None before it.
    """

    def __init__(self, announce: Callable[[int], None] = lambda number: None) -> None:
        self.announce = announce
        self.signal: int | None = None
        self._deferred: list[int] = []
        self._announcement: threading.Thread | None = None

    @property
    def is_urgent(self) -> bool:
        """True if a signal has come whose sender soon kills this process."""
        return self.signal in leaving.SIGNALS

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep signals pending while the block runs, until `receive`.

        Ray's start replaces the handlers in the kernel: a signal then would be lost.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._deferred)
        try:
            yield
        finally:
            self._restore()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._deferred)

    def receive(self) -> None:
        """Handle the signals that have come while they were held."""
        self._restore()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._deferred)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._deferred)

    def _restore(self) -> None:
        for number in self._deferred:
            signal.signal(number, self.handle)

    def defer(self, number: int) -> None:
        """Defer a signal from now on."""
        self._deferred.append(number)
        signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a later one is raised at once.

        Raises:
            Interrupted: if this is not the first signal.
        """
        leaving.hear(number)
        if self.signal is not None:
            raise Interrupted(number)
        self.signal = number
        if number == signal.SIGHUP:
            _leave_terminal()
        # Another thread, because this one may be in the middle of printing.
        self._announcement = threading.Thread(target=self.announce, args=(number,), daemon=True)
        self._announcement.start()

    def end_announcing(self) -> None:
        """Wait for the announcement, so that the last words of the command come after it."""
        if self._announcement is not None:
            self._announcement.join(_ANNOUNCING_SECONDS)


@contextmanager
def deferred_interrupts(
    announce: Callable[[int], None] = lambda number: None,
) -> Iterator[Interrupts]:
    """Defer signals that end a search: the first is raised only by `Interrupts.check`.

    A second signal is raised at once. Nothing changes for a signal that has a handler of its own or
    is ignored, and outside the main thread, which alone receives signals.

    Args:
        announce: function to call with the number of the first signal, at once, in another thread.
    """
    interrupts, before = Interrupts(announce), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if _is_ours(handler)}
    try:
        for number in before:
            interrupts.defer(number)
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts.end_announcing()


@contextmanager
def raised_interrupts() -> Iterator[None]:
    """Raise Interrupted at SIGTERM and SIGHUP, and KeyboardInterrupt at Ctrl-C.

    So the files and processes of the command are cleaned up.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    defaults = (signal.SIG_DFL, leaving.leave_at_once, leaving.interrupt_at_once)
    before = {number: handler for number, handler in before.items() if handler in defaults}
    try:
        for number in before:
            is_ctrl_c = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_ctrl_c else _raise)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def announcing(view: View) -> Callable[[int], None]:
    """Return a function that shows that a signal has come while the search starts or ends."""

    def announce(number: int) -> None:
        view.phase(f"{signal_text(number)}: ending the search, which takes some seconds")

    return announce


@contextmanager
def naming(name: str, is_recorded: Callable[[], bool]) -> Iterator[None]:
    """Add the name of a search to the exception of a signal, if the search is recorded then."""
    try:
        yield
    except Replaced:
        raise
    except KeyboardInterrupt as error:
        if not is_recorded():
            raise
        number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(number, name) from error


def _raise(number: int, frame: FrameType | None) -> None:
    leaving.hear(number)
    raise Interrupted(number)


def _leave_terminal() -> None:
    """Write to nowhere instead of a terminal that is closed, where each write raises an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
    os.close(nowhere)


def _is_ours(handler: object) -> bool:
    """Return True for a default handler and for a handler of this module."""
    owner = getattr(handler, "__self__", None)
    return handler in {*_DEFAULTS, leaving.leave_at_once, _raise} or isinstance(owner, Interrupts)
