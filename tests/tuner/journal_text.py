"""Journals as text: lines whose checksums and links fit, whatever their events say."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def chained(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a journal of some events, each as JSON without checksum and link."""
    data, digest = b"", ""
    for event in events:
        link = {"after": digest} if digest else {}
        spec = {"spec": json.dumps(event["spec"])} if isinstance(event.get("spec"), dict) else {}
        values = _without_nan({**event, **spec, **link})
        text = json.dumps(values, ensure_ascii=False).encode()[:-1]
        line = b'%s,"crc":"%08x"}\n' % (text, zlib.crc32(text))
        digest = hashlib.sha256(digest.encode() + line).hexdigest()[:32]
        data += line
    return data


def events_of(path: Path) -> list[dict[str, Any]]:
    """Return the events of a journal as JSON, without checksums and links."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line, object_hook=_with_nan)
        event.pop("after", None)
        del event["crc"]
        if "spec" in event:  # an object in a text
            event["spec"] = json.loads(event["spec"])
        events.append(event)
    return events


def _with_nan(value: dict[str, Any]) -> Any:
    return float(value["$float"]) if value.keys() == {"$float"} else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value
