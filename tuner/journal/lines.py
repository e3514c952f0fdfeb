"""Lines of a journal: events as JSON, with a checksum and the digest of the lines before."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tuner.errors import JournalError
from tuner.formats import newer
from tuner.journal.check_events import check_event
from tuner.journal.events import Event, Json, read_event

_CRC = len(b',"crc":"01234567"}')
_FLOAT = "$float"
_BEGINNING = b'{"event":'
_AFTER = "after"
_DIGITS = 32  # hexadecimal, of a digest


def digest_with(before: str, line: bytes) -> str:
    """Return the digest of some lines and one more."""
    return hashlib.sha256(before.encode() + line).hexdigest()[:_DIGITS]


def link_to(digest: str) -> Json:
    """Return the entry of a line that names the lines before it by their digest."""
    return {_AFTER: digest} if digest else {}


def line_of(data: Json) -> bytes:
    """Return the line of an event with its time and link."""
    text = json.dumps(
        _without_nan(data), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()
    return b'%s,"crc":"%08x"}\n' % (text[:-1], zlib.crc32(text[:-1]))


def _without_nan(value: Any) -> Any:
    """Return a value with its floats that are not finite as JSON objects."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(float(value))}
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def parse_lines(
    path: Path, data: bytes, before: int = 0, digest: str = ""
) -> tuple[list[Event], int, list[str]]:
    """Return the events, the number of their bytes, and the digest up to each event.

    Args:
        path: path of the journal, for errors.
        data: lines of the journal; the last one may be incomplete.
        before: number of lines before these.
        digest: digest of the lines before these.

    Raises:
        JournalError: if a line is damaged, or another version of tuner wrote a line. (The first
            event of a later format has a key `format`.)
    """
    events: list[Event] = []
    digests: list[str] = []
    end = 0
    for number, line in enumerate(io.BytesIO(data), start=before + 1):
        is_complete = line.endswith(b"\n")
        values = _values(line[:-1]) if is_complete else None
        if values is None:
            # after a power failure, blocks that did not reach the disk read as zeros
            is_torn = end + len(line) == len(data) and (not is_complete or b"\0" in line)
            if is_torn and number == 1 and not _may_begin(line):
                raise JournalError(f"{path} is no journal of a search; restore it or delete it")
            if is_torn:
                break
            raise JournalError(
                f"{path}:{number} is damaged: it does not match its checksum; restore the file, or "
                "delete this line and all lines after it to continue from there"
            )
        if values.get(_AFTER, digest) != digest:
            raise JournalError(
                f"{path}:{number} does not follow the lines before it: a line was edited, removed, "
                f"added or moved; restore the file ('tuner show' says where its copy is recorded)"
            )
        if refusal := newer(f"the journal of {path.parent.name}", values.get("format", 1)):
            raise JournalError(refusal)
        try:
            event = read_event(values)
            check_event(event)
            events.append(event)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise JournalError(
                f"the journal of {path.parent.name} is of another version of tuner, use that "
                f"version for this search; or it was edited, restore it ({path}:{number})"
            ) from error
        end += len(line)
        digest = digest_with(digest, line)
        digests.append(digest)
    return events, end, digests


def _values(line: bytes) -> Json | None:
    """Return the values of a line; None if the line does not match its checksum."""
    body = line[:-_CRC]
    if line[-_CRC:] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    try:
        values = json.loads(body + b"}", object_hook=_with_nan)
    except (ValueError, TypeError, RecursionError):
        return None
    return cast(Json, values) if isinstance(values, dict) else None


def _may_begin(line: bytes) -> bool:
    """Return True if a line may be a part of the first line of a journal."""
    text = line.partition(b"\0")[0]
    return _BEGINNING.startswith(text[: len(_BEGINNING)])


def _with_nan(value: Json) -> Any:
    return float(value[_FLOAT]) if value.keys() == {_FLOAT} else value
