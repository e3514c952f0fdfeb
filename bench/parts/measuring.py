"""Measuring: sides in alternating order, medians and spread, and the format of a result.

A result is JSON. `benchmarks_page.py` writes docs/benchmarks.md from the results in docs/bench/:

    {"bench": "fusion", "about": {"command": …, "date": …, "device": …, …},
     "tables": [{"title": …, "columns": […], "rows": [[…], …]}],
     "goals": [{"what": …, "reached": 3.1, "least": 3.0}], "notes": […], "numbers": {…}}

Imports nothing heavy, because each side runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
T = TypeVar("T")


class Spread(NamedTuple):
    """Median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return text such as `12.3 (11.9 – 14)`."""
        median, low, high = map(_number, self)
        return median if low == high else f"{median} ({low} – {high})"


def _number(value: float) -> str:
    """Return three significant digits, or all digits before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Iterable[float]) -> Spread:
    """Return median, minimum and maximum of at least one value."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def brief(values: Sequence[float]) -> float | Spread:
    """Return a single measurement unchanged, and the spread of several."""
    return values[0] if len(values) == 1 else spread(values)


def by_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure all sides in each round, so that a busy minute of the machine favours no side.

    Every second round runs in reverse order: no side always follows the same other side.

    Args:
        sides: name → function that measures the side once.
        rounds: number of measurements of each side.

    Returns:
        Name → measurements, one for each round.
    """
    measured: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in names:
            if sys.stderr.isatty():
                print(f"\rround {number + 1}/{rounds}: {name}\x1b[K", end="", file=sys.stderr)
            measured[name].append(sides[name]())
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return measured


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of ratios by round: a busy machine slows both sides of a round."""
    return spread(a / b for a, b in zip(over, under, strict=True))


def about(
    packages: Sequence[str], device: str = "cpu", *, rehearsal: bool = False, **settings: Any
) -> dict[str, Any]:
    """Return command, date, device, load, versions and settings of a measurement.

    Args:
        packages: packages whose versions are recorded.
        device: "cpu" or torch's name of a GPU.
        rehearsal: True for numbers that say nothing, of a quick test of the bench.
        settings: what tables and goals depend on in addition to the numbers.
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
        "rehearsal": rehearsal,
        **settings,
    }


def _device(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return str(names[0]) if names else platform.processor() or platform.machine()


def module_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a module of `parts` as a program, and its environment.

    Args:
        module: dotted name, `parts.watched_search`.
        arguments: arguments of the program.
    """
    # ROOT as well, so that `model` and `tuner` need not be installed
    folders = [str(ROOT), str(BENCH), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    return [sys.executable, "-m", module, *arguments], environment


def completed(
    command: Sequence[str], environment: Mapping[str, str] | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its status.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than `seconds`.
    """
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def last_message(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a program wrote to standard error."""
    return (done.stderr.strip().splitlines() or ["without a message"])[-1]


def goal(
    what: str, reached: float | None, *, least: float | None = None, most: float | None = None
) -> Any:
    """Return a goal, met if `reached` is at least `least`, or at most `most`; None is never."""
    assert (least is None) != (most is None)
    limit = {"most": most} if least is None else {"least": least}
    return {"what": what, "reached": reached, **limit}


def is_met(goal: Mapping[str, Any]) -> bool:
    """Return True if a goal was met."""
    if goal["reached"] is None:
        return False
    if "least" in goal:
        return bool(goal["reached"] >= goal["least"])
    return bool(goal["reached"] <= goal["most"])


def goal_line(goal: Mapping[str, Any]) -> str:
    """Return text such as `met     times as fast: 4.1, at least 3`."""
    limit = f"at least {goal['least']:g}" if "least" in goal else f"at most {goal['most']:g}"
    reached = "never" if goal["reached"] is None else f"{goal['reached']:.3g}"
    return f"{'met' if is_met(goal) else 'MISSED':7} {goal['what']}: {reached}, {limit}"


def cell(value: Any) -> str:
    """Return a value as text for a table; None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return str(Spread(*value))
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def plain_result(
    bench: str,
    about: Mapping[str, Any],
    tables: Mapping[str, Sequence[Sequence[Any]]],
    numbers: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a result of tables whose rows have what was measured, the number, and a goal as text.

    Args:
        bench: name of the bench.
        about: what `about` returns.
        tables: title → rows.
        numbers: what was measured.
    """
    columns = ["what", "measured", "goal"]
    made = [{"title": title, "columns": columns, "rows": rows} for title, rows in tables.items()]
    return {
        "bench": bench, "about": about, "tables": made, "goals": [], "notes": [],
        "numbers": numbers,
    }  # fmt: skip


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
    """Write a result as JSON, a list of numbers or texts on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n[^][{}]+\]", lambda found: re.sub(r"\n +", " ", found[0]), text)
    path.write_text(text + "\n", encoding="utf-8")


def add_options(parser: argparse.ArgumentParser, quick: str, *, has_picture: bool = True) -> None:
    """Add the options that benches have in common; `quick` describes the rehearsal."""
    parser.add_argument("--quick", action="store_true", help=f"{quick}, as a test of the bench")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    if has_picture:
        parser.add_argument("--plot", type=Path, help="draw a picture, a PNG")


def finish(
    result: Mapping[str, Any],
    options: argparse.Namespace,
    plot: Callable[[Mapping[str, Any], Path], None] | None = None,
) -> None:
    """Print a result, and write it and its picture where the options of the command say so."""
    show(result)
    if options.out:
        write(result, options.out)
    if plot and options.plot:
        plot(result, options.plot)


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of matplotlib as PNG, without the top and right border of its axes."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, bbox_inches="tight")
