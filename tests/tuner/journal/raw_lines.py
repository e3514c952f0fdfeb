"""Lines of a journal with fitting checksums and digests, also such as no driver writes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.journal.events import Event, as_json
from tuner.journal.journal import JOURNAL_FILE
from tuner.journal.lines import _digest_with


def raw_line(values: Mapping[str, Any]) -> bytes:
    """Return a line with the checksum that fits it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))[:-1].encode()
    return b'%s,"crc":"%08x"}\n' % (text, zlib.crc32(text))


def values_of(event: Event) -> dict[str, Any]:
    """Return what the line of an event says, at the time 1."""
    return {**as_json(event), "time_ms": 1}


def write_lines(folder: Path, *lines: Mapping[str, Any] | Event) -> Path:
    """Write a journal, each line linked to the ones before it; return its folder."""
    folder.mkdir(exist_ok=True)
    before, data = "", b""
    for each in lines:
        values = values_of(each) if isinstance(each, Event) else each
        line = raw_line({"format": 1, **values} if not before else {**values, "after": before})
        before, data = _digest_with(before, line), data + line
    (folder / JOURNAL_FILE).write_bytes(data)
    return folder
