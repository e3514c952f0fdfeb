from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tuner.driver.interrupt import deferred_interrupts


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """Restore the default handler of a program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_is_raised_where_it_is_checked() -> None:
    with deferred_interrupts() as check:
        check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_interrupt_is_raised_at_once() -> None:
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_second_interrupt_can_be_deferred_again() -> None:
    with deferred_interrupts() as check:
        signal.raise_signal(signal.SIGINT)
        with deferred_interrupts() as check_again:
            check_again()
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_other_handler_of_interrupts_stays(handler: signal.Handlers) -> None:
    """A background job of a shell ignores SIGINT."""
    signal.signal(signal.SIGINT, handler)
    with deferred_interrupts() as check:
        assert signal.getsignal(signal.SIGINT) is handler
        signal.raise_signal(signal.SIGINT)
        check()
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupt_is_not_deferred_outside_the_main_thread() -> None:
    handlers = []

    def work() -> None:
        with deferred_interrupts() as check:
            handlers.append(signal.getsignal(signal.SIGINT))
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
