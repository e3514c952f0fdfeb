"""Measurements of a part of gpu.py, and where they are made. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

from parts.measuring import goal

PARTS = ("law", "kernel", "fusion", "lora", "profile", "search")
Numbers = Mapping[str, Any]  # JSON


@dataclass(frozen=True)
class Where:
    """Device and scale of measurements.

    Attributes:
        device: "cuda", or "cpu" for a rehearsal.
        quick: True for tiny models and short spans, as a test of the bench.
        shared: environment of processes that share a GPU.
        sharing: sentence about how they share it.
        limit: seconds that the measurement may take.
        known: measurements of the part that were made before, by name.
    """

    device: str
    quick: bool
    shared: Mapping[str, str] = field(default_factory=dict)
    sharing: str = ""
    limit: float = 600.0
    known: Mapping[str, Numbers] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU."""
        return self.device != "cpu"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of this device, the default of a GPU first."""
        return ("bfloat16", "float32", "tf32") if self.on_gpu else ("bfloat16", "float32")

    @property
    def dtype(self) -> str:
        """The dtype of measurements of speed."""
        return "bfloat16" if self.on_gpu else "float32"


class Measurement(NamedTuple):
    """A measurement of a part.

    Attributes:
        measure: makes the measurement.
        seconds: expected time on a GPU; the measurement does not begin when less is left.
    """

    measure: Callable[[Where], Numbers]
    seconds: float


def of_kind(numbers: Mapping[str, Numbers], kind: str) -> dict[str, Numbers]:
    """Return the measurements that are called `kind, …`, by the rest of their names."""
    prefix = f"{kind}, "
    return {n.removeprefix(prefix): each for n, each in numbers.items() if n.startswith(prefix)}


@dataclass
class Verdicts:
    """Goals of a part: those that were measured, and those that were not.

    Attributes:
        goals: goals in the format of `parts.measuring`.
        open: goals without a measurement.
    """

    goals: list[Any] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def add(
        self,
        what: str,
        reached: float | None,
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> None:
        """Add a goal; `reached` is None if it was not measured."""
        if reached is None:
            limit = f"at least {least:g}" if least is not None else f"at most {most:g}"
            self.open.append(f"{what}, {limit}")
        else:
            self.goals.append(goal(what, reached, least=least, most=most))


def part_of(name: str) -> Any:
    """Import the module of a part, such as `parts.gpu.law`.

    It has `measurements(where)`, all of them by name, the most important ones first; and of those
    that were made, by name, `tables(numbers)`, `verdicts(numbers)` and `notes(numbers)`.
    """
    return import_module(f"parts.gpu.{name}")
