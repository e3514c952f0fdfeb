"""What a user sees while a search runs: a live view on a terminal, a line per event elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from model.progress import OnProgress, silent
from tuner import progress
from tuner.board import Board, TrialRow
from tuner.messages import clock

_MOST_ROWS = 12
_BARS = " ▏▎▍▌▋▊▉█"


class View(Protocol):
    """Is told what happens."""

    def phase(self, message: str) -> None:
        """Something before or after training is being done."""

    def progress(self) -> AbstractContextManager[OnProgress]:
        """Long work before training begins; it says how far it is to what this gives."""

    def begin(self, board: Board, title: str) -> None:
        """Training begins."""

    def event(self, row: TrialRow, message: str) -> None:
        """Something happened to a trial."""

    def end(self) -> None:
        """Training is over."""


class SilentView:
    """Shows nothing; for use from Python."""

    def phase(self, message: str) -> None:
        """Show nothing."""

    def progress(self) -> AbstractContextManager[OnProgress]:
        """Show nothing."""
        return nullcontext(silent)

    def begin(self, board: Board, title: str) -> None:
        """Show nothing."""

    def event(self, row: TrialRow, message: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class LogView(SilentView):
    """A plain line per event, for pipes and files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board: Board | None = None

    def phase(self, message: str) -> None:
        """Print it."""
        self._console.print(message, highlight=False, soft_wrap=True)

    def progress(self) -> AbstractContextManager[OnProgress]:
        """A line for each stage, and now and then how far it is."""
        return progress.shown(self._console)

    def begin(self, board: Board, title: str) -> None:
        """Print the title."""
        self._board = board
        self.phase(title)

    def event(self, row: TrialRow, message: str) -> None:
        """Print time, trial, message and how far the search is."""
        board = self._board
        assert board is not None
        left = "" if board.seconds_left is None else f", about {clock(board.seconds_left)} left"
        self._console.print(
            f"{clock(board.seconds)}  trial {row.number:>3}  {message}  "
            f"[{len(board.ended)}/{board.num_trials} trials, "
            f"{board.tokens_per_second:,.0f} tokens/s{left}]",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


class LiveView(SilentView):
    """A view that redraws itself four times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._board: Board | None = None
        self._title = ""

    def phase(self, message: str) -> None:
        """Print it above the view."""
        self._console.print(Text(message, style="dim"))

    def progress(self) -> AbstractContextManager[OnProgress]:
        """A bar that vanishes at the end."""
        return progress.shown(self._console)

    def begin(self, board: Board, title: str) -> None:
        """Start drawing."""
        self._board, self._title = board, title
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def end(self) -> None:
        """Stop drawing and leave the screen as it was."""
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> RenderableType:
        assert self._board is not None
        return Group(*draw_board(self._board, self._title, self._console.width))


def draw_board(board: Board, title: str, width: int) -> list[RenderableType]:
    """The live view as lines: progress, best so far, rungs, and the trials under way."""
    left = "…" if board.seconds_left is None else f"about {clock(board.seconds_left)} left"
    diverged = sum(row.has_diverged for row in board.rows.values())
    head = Text.assemble(
        (title, "bold"),
        f"  {len(board.ended)}/{board.num_trials} trials",
        f" · {len(board.training)} training",
        f" · {len(board.parked)} waiting" if board.parked else "",
        f" · {diverged} diverged" if diverged else "",
        f" · {board.tokens_per_second:,.0f} tokens/s",
        f" · {clock(board.seconds)}, {left}",
    )
    bar = ProgressBar(
        total=board.num_trials, completed=len(board.ended), width=max(10, min(60, width - 2))
    )
    # padded, because a bar alone does not end its line
    return [head, Padding(bar), _best_line(board), _rung_line(board), _table(board)]


def _best_line(board: Board) -> Text:
    best = board.best
    if best is None:
        return Text("waiting for the first report", style="dim")
    line = Text.assemble(
        "best ",
        (f"{board.metric} {best.objective(board.metric):.4f}", "bold green"),
        f"  trial {best.number} at {best.tokens:,} tokens",
    )
    defaults = board.rows.get(0)
    if defaults and defaults is not best and defaults.last:
        line.append(
            f"  (defaults {defaults.objective(board.metric):.4f} at {defaults.tokens:,})",
            style="dim",
        )
    return line


def _rung_line(board: Board) -> Text:
    """How many trials reached each report at which some were stopped."""
    reached = Counter(len(row.reports) for row in board.searched)
    over = board.ended + board.parked
    stops = {len(r.reports) for r in over if not (r.has_finished or r.has_diverged)} - {0}
    total = max((len(r.report_steps) for r in board.rows.values()), default=1)
    line = Text("reached ", style="dim")
    for rung in sorted(stops | {total}):
        count = sum(n for reports, n in reached.items() if reports >= rung)
        line.append(f" report {rung} ", style="dim")
        line.append("█" * math.ceil(20 * count / board.num_trials), style="cyan")
        line.append(f" {count} ", style="dim")
    return line


def _table(board: Board) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for name, justify in (("trial", "right"), ("budget", "left"), (board.metric, "right")):
        table.add_column(name, justify=justify, style="dim" if name == "trial" else None)  # type: ignore[arg-type]
    table.add_column("B", justify="right", style="dim")
    table.add_column("peak rate", justify="right", style="dim")
    for row in board.training[:_MOST_ROWS]:
        h = row.spec.hyperparameters
        peak = h.max_learning_rate if h.schedule == "cosine" else h.learning_rate
        table.add_row(
            str(row.number),
            _bar(row.tokens / row.spec.budget_tokens),
            f"{row.objective(board.metric):.4f}" if row.last else "",
            str(h.batch_size),
            f"{peak:.2g}",
        )
    return table


def _bar(share: float, cells: int = 16) -> str:
    eighths = round(8 * cells * min(1.0, share))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BARS[rest] if rest else "")).ljust(cells, "·")
