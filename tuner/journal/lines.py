"""Lines of a journal: events as JSON, with a checksum and the digest of the lines before."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from tuner.errors import JournalError
from tuner.home.formats import newer
from tuner.journal.events import Event, Json, as_json, read_event

_CRC = len(b',"crc":"01234567"}')
_FLOAT = "$float"
_BEGINNING = b'{"event":'
_AFTER = "after"
_FORMAT = 1  # of the lines; the first one names it
_DIGITS = 32  # hexadecimal, of a digest


class Entry(NamedTuple):
    """An event of a journal, and the digest of the journal up to it.

    Attributes:
        event: the event, with its time.
        digest: digest of the lines up to and with the event's, as hexadecimal digits.
    """

    event: Event
    digest: str


def line_of(event: Event, before: str) -> tuple[bytes, Entry]:
    """Return the line of an event, and its entry.

    Args:
        event: the event, with its time.
        before: digest of the lines before; empty for the first line.
    """
    link = {_AFTER: before} if before else {"format": _FORMAT}
    values = {**as_json(event), **link}
    try:
        text = _text_of(values).encode()
    except ValueError:  # a number that is not finite
        text = _text_of(_without_nan(values)).encode()
    line = b'%s,"crc":"%08x"}\n' % (text[:-1], zlib.crc32(text[:-1]))
    return line, Entry(event, _digest_with(before, line))


def _text_of(values: Json) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _digest_with(before: str, line: bytes) -> str:
    """Return the digest of some lines and one more."""
    return hashlib.sha256(before.encode() + line).hexdigest()[:_DIGITS]


def _without_nan(value: Any) -> Any:
    """Return a value with its floats that are not finite as JSON objects."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(float(value))}
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value


def parse_lines(
    path: Path, data: bytes, count: int = 0, before: str = ""
) -> tuple[list[Entry], int]:
    """Return the entries of some lines, and the number of their bytes.

    Args:
        path: path of the journal, for errors.
        data: lines of the journal; the last one may be incomplete.
        count: number of lines before these.
        before: digest of the lines before these.

    Raises:
        JournalError: if a line is damaged, or another version of tuner wrote a line.
    """
    entries: list[Entry] = []
    end = 0
    for number, line in enumerate(io.BytesIO(data), start=count + 1):
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
        if number == 1 and _AFTER not in values:
            _check_format(path, values.pop("format", 0))
        elif values.pop(_AFTER, "") != before:
            raise JournalError(
                f"{path}:{number} does not follow the lines before it: a line was edited, removed, "
                f"added or moved; restore the file ('tuner show' says where its copy is recorded)"
            )
        try:
            event = read_event(values)
        except (ValueError, TypeError, RecursionError) as error:
            raise JournalError(
                f"{path}:{number}: unknown event. The journal of {path.parent.name} was written by "
                f"another version of tuner, or edited. Use that version, or restore the journal."
            ) from error
        end += len(line)
        before = _digest_with(before, line)
        entries.append(Entry(event, before))
    return entries, end


def _check_format(path: Path, version: object) -> None:
    if version == 0:
        raise JournalError(
            f"{path} was written before tuner 0.1.0, whose journals are not read; search again"
        )
    if refusal := newer(f"the journal of {path.parent.name}", version):
        raise JournalError(refusal)


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
