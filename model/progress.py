"""Progress of long work, passed to a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """Progress of one stage of some work.

    Attributes:
        stage: name of the stage, for instance "encoding".
        done: units that are done.
        total: units of the complete stage; None if unknown.
        unit: "B" for bytes, otherwise a plural noun.
    """

    stage: str
    done: int
    total: int | None
    unit: str


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Ignore progress."""
