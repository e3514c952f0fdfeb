"""What measurements have in common: sides by turns, medians and spread, and one form of result.

A result is JSON; `benchmarks_page.py` makes docs/benchmarks.md of those in docs/bench/:

    {"bench": "fusion", "about": {"command": …, "date": …, "device": …, …},
     "tables": [{"title": …, "columns": […], "rows": [[…], …]}],
     "goals": [{"what": …, "reached": 3.1, "least": 3.0}], "notes": […], "numbers": {…}}

Imports nothing heavy: sides run in processes of their own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


class Spread(NamedTuple):
    """Some measurements of one thing: their median, least and most."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """`12.3 (11.9 – 14)`."""
        median, low, high = map(_number, self)
        return median if low == high else f"{median} ({low} – {high})"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Iterable[float]) -> Spread:
    """Median, least and most of at least one value."""
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1])


def brief(values: Sequence[float]) -> float | Spread:
    """One measurement as it is, several as their spread."""
    return values[0] if len(values) == 1 else spread(values)


def by_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each side gave in each round, so that a busy minute of the machine favours none.

    Every other round goes through them backwards: none always comes after the same one.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in names:
            if sys.stderr.isatty():
                print(f"\rround {number + 1}/{rounds}: {name}\x1b[K", end="", file=sys.stderr)
            found[name].append(sides[name]())
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Ratios of two sides, round by round: what the machine did to a round, it did to both."""
    return spread(a / b for a, b in zip(over, under, strict=True))


def about(packages: Sequence[str], device: str = "cpu") -> dict[str, Any]:
    """Where, when, with what and how something is measured.

    Args:
        packages: whose versions matter.
        device: "cpu", or what torch calls the other one.
    """
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in packages}
    command = ["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]]
    return {
        "command": shlex.join(command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": _device(device),
        "kind": device.partition(":")[0],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def _device(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return str(names[0]) if names else platform.processor() or platform.machine()


def goal(
    what: str, reached: float, *, least: float | None = None, most: float | None = None
) -> Any:
    """A goal, met if what is reached is at least, or at most, a number."""
    assert (least is None) != (most is None)
    limit = {"most": most} if least is None else {"least": least}
    return {"what": what, "reached": reached, **limit}


def is_met(goal: Mapping[str, Any]) -> bool:
    """Whether a goal was reached."""
    if "least" in goal:
        return bool(goal["reached"] >= goal["least"])
    return bool(goal["reached"] <= goal["most"])


def goal_line(goal: Mapping[str, Any]) -> str:
    """`met     at least 3 times faster: 4.1`."""
    limit = f"at least {goal['least']:g}" if "least" in goal else f"at most {goal['most']:g}"
    return f"{'met' if is_met(goal) else 'MISSED':7} {goal['what']}: {goal['reached']:.3g}, {limit}"


def cell(value: Any) -> str:
    """A value as a table shows it; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return str(Spread(*value))
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(result: Mapping[str, Any]) -> None:
    """Print a result."""
    about = result["about"]
    print(f"{about['device']}, {about['cores']} cores, load {about['load']}")
    print(*(f"{name} {version}" for name, version in about["versions"].items()), sep=", ")
    for table in result["tables"]:
        rows = [table["columns"], *([cell(value) for value in row] for row in table["rows"])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(f"\n{table['title']}")
        for row in rows:
            cells = zip(row, widths, strict=True)
            first, *rest = [
                f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(cells)
            ]
            print("  ".join([first, *rest]))
    if result["goals"]:
        print()
    for each in result["goals"]:
        print(goal_line(each))
    for note in result["notes"]:
        print(note)


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
