"""Takes named steps in order, and says how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


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
    """

    name: str
    run: Callable[[R], None]


def take_steps(steps: Sequence[Step[R]], result: R) -> None:
    """Take the steps in order; between two of them, a signal or 'tuner stop' ends the start.

    Raises:
        Interrupted: if a signal or a request has come.
    """
    for step in steps:
        result.check()
        begun = time.monotonic()
        step.run(result)
        seconds, since = time.monotonic() - begun, time.monotonic() - result.began
        result.say_debug(f"step {step.name}: {seconds:.1f} s, at {since:.1f} s")
