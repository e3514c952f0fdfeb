"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """How far one stage of some work is.

    Attributes:
        stage: what is being done: "encoding".
        done: units done.
        total: units there are; None if that is not known.
        unit: "B" for bytes, otherwise a plural noun.
    """

    stage: str
    done: int
    total: int | None
    unit: str


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Tell nobody."""
