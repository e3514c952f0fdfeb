"""Takes named steps in order, some of them aside, and says how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_WAIT_SECONDS = 0.05  # between two checks for a signal


class Result(Protocol):
    """What the steps add to.

    Attributes:
        began: time of `time.monotonic` at which the first step began, or before.
    """

    began: float

    def check(self) -> None:
        """Raise an exception if no further step shall be taken."""

    def say_debug(self, text: str) -> None:
        """Tell a user who looks for faults."""


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Step(Generic[R]):
    """A step.

    Attributes:
        name: name of the step.
        run: does it.
        after: names of the steps aside that must have ended.
        is_aside: True to do it in a thread while the next steps are done.
    """

    name: str
    run: Callable[[R], None]
    after: Sequence[str] = ()
    is_aside: bool = False


def take_steps(steps: Sequence[Step[R]], result: R) -> None:
    """Take the steps in order; between two of them, a signal or 'tuner stop' ends the start.

    Raises:
        Interrupted: if a signal or a request has come.
    """
    aside: dict[str, Future[None]] = {}

    def timed(step: Step[R]) -> None:
        begun = time.monotonic()
        step.run(result)
        seconds, since = time.monotonic() - begun, time.monotonic() - result.began
        where = " beside the others" if step.is_aside else ""
        result.say_debug(f"step {step.name}: {seconds:.1f} s{where}, at {since:.1f} s")

    for step in steps:
        begun = time.monotonic()
        for name in step.after:
            while not aside[name].done():
                result.check()
                wait([aside[name]], timeout=_WAIT_SECONDS)
            aside[name].result()
        if step.after:
            waited, names = time.monotonic() - begun, ", ".join(step.after)
            result.say_debug(f"step {step.name} has waited {waited:.1f} s for {names}")
        result.check()
        if step.is_aside:
            pool = ThreadPoolExecutor(1)
            aside[step.name] = pool.submit(timed, step)
            pool.shutdown(wait=False)  # a signal need not wait for it
        else:
            timed(step)
