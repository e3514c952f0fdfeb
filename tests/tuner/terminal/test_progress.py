"""Progress of long work: lines in a pipe, bars on a terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from model.progress import Progress
from tuner.terminal import progress as progress_module
from tuner.terminal.progress import show_progress


def test_progress_in_pipe_prints_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=100)
    with show_progress(console) as report:
        for second in range(25):
            clock[0] = 100.0 + second
            report(Progress("encoding", second * 1_000_000, 50_000_000, "B"))
        report(Progress("merging", 0, 4096, "tokens"))
        clock[0] += 10
        report(Progress("merging", 1024, 4096, "tokens"))
        clock[0] += 10
        report(Progress("merging", 2048, None, "tokens"))
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "encoding",
        "encoding: 10.0 MB of 50.0 MB · 1.0 MB/s · 0:40 left",
        "encoding: 20.0 MB of 50.0 MB · 1.0 MB/s · 0:30 left",
        "merging",
        "merging: 1,024 tokens of 4,096 tokens · 102 tokens/s · 0:30 left",
        "merging: 2,048 tokens · 102 tokens/s",
    ]


def test_progress_on_terminal_is_one_transient_bar() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with show_progress(console) as report:
        report(Progress("reading", 0, None, "B"))
        report(Progress("encoding", 10_000_000, 50_000_000, "B"))
        time.sleep(0.15)
        report(Progress("encoding", 20_000_000, 50_000_000, "B"))
        time.sleep(0.15)
        bars: progress_module._Bars = report  # type: ignore[assignment]
        assert [task.description for task in bars._bars.tasks] == ["encoding"]
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "encoding" in out
    assert "20.0 MB of 50.0 MB" in out
    assert "MB/s" in out
    assert " left" in out
    assert out.rstrip().endswith("\x1b[2K")  # the line of the bar is cleared
