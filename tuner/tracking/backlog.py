"""What the tracking store of a search lacks: the data itself, and its amount for other processes.

The amount is in a file beside the journal, which exists only while the store lacks something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from model.files import read_regular, replacing
from tuner.tracking.runs import RunStart, TimedReport

_FILE = "unsynced"


@dataclass
class UnsentTrial:
    """Data of a trial that is not stored yet; only the writer thread changes it."""

    number: int
    start: RunStart | None = None  # None once its run is described
    run_id: str | None = None
    reports: list[TimedReport] = field(default_factory=list)
    stored_tokens: float = -1  # training tokens at the newest stored report
    status: str = "running"  # to be stored
    status_ms: int = 0
    stored_status: str | None = None

    @property
    def num_events(self) -> int:
        """Number of events that the store lacks: start, reports and outcome."""
        is_ended = self.status not in ("running", self.stored_status)
        return (self.start is not None) + len(self.reports) + is_ended


@dataclass
class Task:
    """An action of the writer thread for which a caller waits."""

    action: Callable[[], None]
    done: threading.Event = field(default_factory=threading.Event)


def note_unsynced(folder: Path, events: int) -> None:
    """Write how many events of a search its store lacks; a full disk keeps the number before."""
    path = folder / _FILE
    with suppress(OSError):
        if events == 0:
            path.unlink(missing_ok=True)
        else:
            with replacing(path) as file:
                file.write(f"{events}\n".encode())


def unsynced_events(folder: Path) -> int:
    """Return how many events of a search its store lacked when it was last asked to take any."""
    try:
        text = read_regular(folder / _FILE).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.strip().isdecimal() and len(text) < 20 else 0
