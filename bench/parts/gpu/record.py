"""Record of the measurements of a part: one line of JSON each, on the disk before the next begins.

A line is a measurement that was made or that failed. A second run skips what was made by equal code
on an equal device; failures are tried again. Lines of other code or devices are kept, and ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parts.measuring import ROOT

# What the numbers of a part depend on, in addition to model/ and what all parts share.
_SHARED = (
    "bench/parts/gpu/child.py",
    "bench/parts/gpu/measurement.py",
    "bench/parts/measuring.py",
    "bench/parts/synthetic.py",
)
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "law": (
        "bench/fusion.py",
        "bench/parts/fusion",
        "bench/parts/gpu/fusion.py",
        "bench/parts/gpu/trials.py",
        "bench/parts/gpu/pytests.py",
        "tests/gpu",
    ),
    "kernel": ("bench/parts/fusion",),
    "fusion": ("bench/fusion.py", "bench/parts/fusion"),
    "lora": ("bench/lora.py", "bench/parts/lora"),
    "profile": ("bench/parts/fusion", "bench/parts/gpu/trials.py"),
    "search": (
        "bench/makespan.py",
        "bench/parts/makespan",
        "bench/parts/nvidia_smi.py",
        "bench/parts/watched_search.py",
        "search_spaces/lm_gpu.yaml",
        "tuner",
    ),
}


def code_of(part: str) -> str:
    """Return a digest of the code that a part measures, and of the code that measures it."""
    digest = hashlib.sha256()
    names = ("model", *_SHARED, f"bench/parts/gpu/{part}.py", *_SOURCES[part])
    for name in names:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(ROOT)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class Record:
    """Measurements of one part on one device by one version of the code.

    Args:
        path: file of the lines; made if needed.
        identity: code, device and scale; only lines with an equal one are read.

    Attributes:
        numbers: measurement → its numbers.
        failures: measurement → why it failed, in this run or the last one that tried it.
        ignored: number of lines with another identity.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._identity = path, dict(identity)
        self.numbers: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.ignored = 0
        self._is_torn = False  # the last line was cut off
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._is_torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            name, identity = entry["name"], entry["identity"]
        except (ValueError, KeyError, TypeError):
            return  # cut off while it was written
        if identity != self._identity:
            self.ignored += 1
        elif "numbers" in entry:
            self._keep(name, numbers=entry["numbers"])
        else:
            self._keep(name, failure=str(entry.get("failure")))

    def _keep(self, name: str, *, numbers: Any = None, failure: str | None = None) -> None:
        """Keep the last word on a measurement; a failure does not undo an earlier success."""
        if failure is None:
            self.numbers[name] = numbers
            self.failures.pop(name, None)
        elif name not in self.numbers:
            self.failures[name] = failure

    def add(
        self, name: str, seconds: float, *, numbers: Any = None, failure: str | None = None
    ) -> None:
        """Append a measurement, or why it failed, and wait until the line is on the disk."""
        self._keep(name, numbers=numbers, failure=failure)
        what = {"numbers": numbers} if failure is None else {"failure": failure}
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"name": name, "at": at, "seconds": round(seconds, 1), **what}
        line = json.dumps({**entry, "identity": self._identity}, ensure_ascii=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as out:
            out.write("\n" * self._is_torn + line + "\n")
            out.flush()
            os.fsync(out.fileno())
        self._is_torn = False
