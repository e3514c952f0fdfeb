"""The file `outbox.jsonl` beside a journal: receivers, deliveries, and news that no journal has.

A line is one of

    {"to": KEY, "since": NUMBER}              a receiver, and the number of events before it
    {"to": KEY, "delivered": ID}
    {"lost": NODE ID, "name": NAME, "time": SECONDS}   a node of the cluster, as the driver saw it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.errors import TunerError
from tuner.home import open_file

OUTBOX = "outbox.jsonl"


def note(folder: Path, entry: Mapping[str, object]) -> None:
    """Append a line to the outbox of a search; without it, if the disk refuses it."""
    with suppress(OSError, TunerError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(open_file(folder / OUTBOX, flags), "ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")


class OutboxTail:
    """Reads an outbox as it grows.

    Args:
        folder: folder of the search.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._offset = folder / OUTBOX, 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of the lines since the last call; not of one that is being written."""
        try:
            with os.fdopen(open_file(self._path, os.O_RDONLY), "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except (OSError, TunerError):
            return
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError):  # of a driver that was killed
                if isinstance(entry := json.loads(line), dict):
                    yield entry
