"""File of measurements of a device, which later searches read; imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.files import read_regular, replacing


def key_of(facts: Any) -> str:
    """Return the key of what a measurement depends on, as values of JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_measurements(file: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a file by key; none if it cannot be read."""
    try:
        entries = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {key: value for key, value in entries.items() if isinstance(value, dict)}


def add_measurement(file: Path, key: str, value: Mapping[str, Any]) -> None:
    """Add an entry to a file atomically; if it cannot be written, nothing is kept."""
    text = json.dumps({**read_measurements(file), key: value}, indent=1, sort_keys=True)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as out:
            out.write(text.encode())
