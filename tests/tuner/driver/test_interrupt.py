from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tuner.driver.interrupt import deferred_interrupts, raised_interrupts
from tuner.errors import Interrupted, signal_text

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
USUAL = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """Restore the default handlers of a program."""
    before = [signal.signal(n, handler) for n, handler in zip(SIGNALS, USUAL, strict=True)]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP leaves the terminal, which the tests may have."""
    monkeypatch.setattr("tuner.driver.interrupt._leave_terminal", lambda: None)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_raised_where_it_is_checked(number: signal.Signals) -> None:
    with deferred_interrupts() as interrupts:
        interrupts.check()
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt) as raised:
            interrupts.check()
    assert raised.value.signal == interrupts.signal == number
    assert raised.value.exit_status == 128 + number
    assert tuple(map(signal.getsignal, SIGNALS)) == USUAL


@pytest.mark.parametrize("second", SIGNALS)
def test_second_signal_is_raised_at_once(second: signal.Signals) -> None:
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            signal.raise_signal(second)


def test_second_signal_can_be_deferred_again() -> None:
    with deferred_interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        with deferred_interrupts() as again:
            again.check()
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            interrupts.check()


def test_first_signal_is_announced_at_once() -> None:
    announced, came = [], threading.Event()

    def announce(number: int) -> None:
        announced.append(signal_text(number))
        came.set()

    with deferred_interrupts(announce):
        signal.raise_signal(signal.SIGTERM)
        assert came.wait(10)
    assert announced == ["ended by SIGTERM"]
    assert signal_text(signal.SIGINT) == "interrupted"


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_not_lost_while_ray_replaces_handlers(number: signal.Signals) -> None:
    lost: list[int] = []
    with deferred_interrupts() as interrupts:
        with interrupts.held():
            signal.signal(number, lambda number, frame: lost.append(number))
            signal.raise_signal(number)
            assert interrupts.signal is None
            interrupts.receive()
            assert interrupts.signal == number
        assert lost == []


def test_handlers_that_ray_replaces_are_restored() -> None:
    with deferred_interrupts() as interrupts:
        with interrupts.held():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.signal == signal.SIGTERM


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_other_handler_of_signals_stays(number: signal.Signals, handler: signal.Handlers) -> None:
    """A background job of a shell ignores SIGINT, and `nohup` SIGHUP."""
    signal.signal(number, handler)
    with raised_interrupts(), deferred_interrupts() as interrupts:
        assert signal.getsignal(number) is handler
        signal.raise_signal(number)
        interrupts.check()
    assert signal.getsignal(number) is handler


def test_commands_raise_signals_that_end_a_program() -> None:
    with raised_interrupts():
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        with deferred_interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.signal == signal.SIGHUP
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGHUP)
    assert tuple(map(signal.getsignal, SIGNALS)) == USUAL


def test_signals_are_not_deferred_outside_the_main_thread() -> None:
    handlers = []

    def work() -> None:
        with raised_interrupts(), deferred_interrupts() as interrupts:
            handlers.append(tuple(map(signal.getsignal, SIGNALS)))
            interrupts.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [USUAL]
