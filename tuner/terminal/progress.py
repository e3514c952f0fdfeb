"""Progress of long work: a bar with rate and time left; in a pipe, a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text
from typing_extensions import override

from model.progress import OnProgress, Progress
from tuner.texts.formatting import clock

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(console: Console) -> Iterator[OnProgress]:
    """Show the progress that is reported within the context; bars vanish at its end."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", style="dim", markup=False),
        BarColumn(bar_width=30),
        _Amount(),
    ]
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    """Shows one bar, for the current stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._stage = progress.stage
            self._bars.add_task(progress.stage, total=None, unit=progress.unit)
        task = self._bars.task_ids[-1]
        # without a total the bar pulses
        total = progress.total if progress.done else None
        self._bars.update(task, completed=progress.done, total=total)


class _Amount(ProgressColumn):
    """Column of a bar such as `9.7/10.2 MB · 14.1 MB/s · 0:12 left`."""

    @override
    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text()
        rate = task.speed or (task.completed / task.elapsed if task.elapsed else None)
        left = None
        if task.total is not None and rate:
            left = max(0.0, task.total - task.completed) / rate
        progress = Progress(
            task.description,
            int(task.completed),
            None if task.total is None else int(task.total),
            task.fields["unit"],
        )
        return Text(_amount(progress, rate, left), style="dim")


class _Lines:
    """Prints a line when a stage starts, and one every ten seconds during the stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._started = self._printed = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._started, self._printed = progress.stage, now, now
            self._print(progress.stage)
        elif now - self._printed >= _SECONDS_BETWEEN_LINES and progress.done:
            self._printed = now
            rate = progress.done / (now - self._started)
            left = None if progress.total is None else (progress.total - progress.done) / rate
            self._print(f"{progress.stage}: {_amount(progress, rate, left)}")

    def _print(self, message: str) -> None:
        self._console.print(message, highlight=False, soft_wrap=True)


def _amount(progress: Progress, rate: float | None, left: float | None) -> str:
    done, total = _quantity(progress.done, progress.unit), ""
    if progress.total is not None:
        total = f" of {_quantity(progress.total, progress.unit)}"
    parts = [done + total]
    if rate:
        parts.append(f"{_quantity(round(rate), progress.unit)}/s")
    if left is not None:
        parts.append(f"{clock(left)} left")
    return " · ".join(parts)


def _quantity(number: int, unit: str) -> str:
    return filesize.decimal(number) if unit == "B" else f"{number:,} {unit}"
