"""Views of a running search: a live view on a terminal, a line per event in a pipe or file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from model.progress import OnProgress
from tuner.conductor.board import Board
from tuner.conductor.trial import Trial
from tuner.driver.view import SilentView
from tuner.space.parameter import peak_rate
from tuner.terminal.progress import show_progress
from tuner.texts.formatting import clock, metric_text

_MOST_ROWS = 12
_BARS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_LONGEST_BAR = 40  # cells
_NARROW = 50  # cells; below, the table has fewer columns
_LINES_ABOVE = 6  # of the view above the table, and the line of the cursor


class LogView(SilentView):
    """Prints a plain line per event, for pipes and files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board: Board | None = None

    @override
    def phase(self, message: str) -> None:
        self._console.print(message, highlight=False, soft_wrap=True)

    @override
    def progress(self) -> AbstractContextManager[OnProgress]:
        return show_progress(self._console)

    @override
    def begin(self, board: Board, title: str) -> None:
        self._board = board
        self.phase(title)

    @override
    def workers(self, up: int, number: int) -> None:
        if not up:
            self.phase(waiting_text(number))

    @override
    def event(self, trial: Trial, message: str) -> None:
        board = self._board
        assert board is not None
        left = "" if board.seconds_left is None else f", about {clock(board.seconds_left)} left"
        self.phase(
            f"{clock(board.seconds)}  trial {trial.number:>3}  {message}  "
            f"[{len(board.ended)}/{board.num_trials} trials, "
            f"{board.tokens_per_second:,.0f} tokens/s{left}]"
        )


class LiveView(SilentView):
    """Redraws the state of the search four times a second and prints important events above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._board: Board | None = None
        self._title = ""
        self._workers: tuple[int, int] | None = None  # that are up, and all

    @override
    def phase(self, message: str) -> None:
        self._console.print(Text(message, style="dim"))

    @override
    def progress(self) -> AbstractContextManager[OnProgress]:
        return show_progress(self._console)

    @override
    def begin(self, board: Board, title: str) -> None:
        self._board, self._title = board, title
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    @override
    def event(self, trial: Trial, message: str) -> None:
        if trial.has_diverged or trial.has_failed or (trial.last and trial.last.problem):
            style = "yellow"
        elif self._board is not None and trial is self._board.best and trial.has_finished:
            style = "green"
        else:
            return  # the view shows it anyway
        assert self._board is not None
        line = f"{clock(self._board.seconds)}  trial {trial.number}  {message}"
        self._console.print(Text(line, style=style))

    @override
    def workers(self, up: int, number: int) -> None:
        self._workers = up, number

    @override
    def end(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> RenderableType:
        assert self._board is not None
        size = self._console.size
        return Group(*draw_board(self._board, self._title, size.width, size.height, self._workers))


def view_on(console: Console) -> LogView | LiveView:
    """Return the view for a terminal, or for a pipe."""
    return LiveView(console) if console.is_terminal else LogView(console)


def waiting_text(number: int) -> str:
    """Say that a search waits, because none of its workers is up."""
    return f"waiting for workers: 0 of {number} are up"


def draw_board(
    board: Board, title: str, width: int, height: int = 40, workers: tuple[int, int] | None = None
) -> list[RenderableType]:
    """Return the lines of the live view, which never wrap: progress, best so far, rungs, trials.

    Args:
        board: board of the search.
        title: name of the search.
        width: width of the terminal, in cells.
        height: height of the terminal, in lines.
        workers: number of workers that are up, and of all; None if that is not known.
    """
    rungs = _rung_lines(board, width)
    rows = max(1, min(_MOST_ROWS, height - _LINES_ABOVE - len(rungs)))
    lines: list[RenderableType] = [_head(board, title, width), _throughput(board, workers)]
    lines += [_best_line(board, width), *rungs]
    for line in lines:
        assert isinstance(line, Text)
        line.no_wrap, line.overflow = True, "ellipsis"
    if board.training:
        lines.append(_table(board, rows, is_narrow=width < _NARROW))
    return lines


def _head(board: Board, title: str, width: int) -> Text:
    left = "…" if board.seconds_left is None else f"about {clock(board.seconds_left)} left"
    counts = f" {len(board.ended)}/{board.num_trials} trials · {clock(board.seconds)}, {left}"
    room = width - len(title) - len(counts) - 2
    line = Text.assemble((title, "bold"), " ")
    if room >= 10:
        bar = _bar(len(board.ended) / board.num_trials, min(_LONGEST_BAR, room))
        line.append(bar, style="green")
    return line.append(counts)


def _throughput(board: Board, workers: tuple[int, int] | None) -> Text:
    up, number = workers or (1, 1)
    if not up:
        return Text(waiting_text(number), style="yellow")
    counts = {
        "training": len(board.training),
        "paused": len(board.paused),
        "diverged": sum(trial.has_diverged for trial in board.trials.values()),
        "confirming": sum(trial.confirms is not None for trial in board.training),
    }
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    if up < number:
        parts.append(f"{up} of {number} workers are up")
    return Text(" · ".join([f"{board.tokens_per_second:,.0f} tokens/s", *parts]), style="dim")


def _best_line(board: Board, width: int) -> Text:
    best = board.best
    if best is None:
        return Text("waiting for the first report", style="dim")
    line = Text.assemble(
        "best " if best.has_finished else f"{board.objective.lowest} ",
        (f"{board.metric} {metric_text(board.value(best))}", "bold green"),
        f"  trial {best.number}",
    )
    if not best.has_finished:  # values after other numbers of tokens are not compared with it
        line.append(f" at report {best.place}/{best.num_places}")
    defaults = board.defaults
    if defaults and defaults is not best:
        value = defaults.value_at(board.metric, best.place)
        if value is not None:
            line.append(f"  (defaults {metric_text(value)})", style="dim")
    room = min(_LONGEST_BAR, width - len(line) - 2)
    if room >= 8:
        values = [best.value(board.metric, report) for report in best.reports]
        line.append("  ").append(sparkline(values, room), style="green")
    return line


def sparkline(values: Sequence[float], cells: int, scale: Sequence[float] | None = None) -> str:
    """Draw a curve as a row of bars, the newest value last; values not finite are omitted.

    Args:
        values: values in the order of time.
        cells: largest number of characters.
        scale: values whose minimum and maximum are the ends of the scale; by default `values`.
    """
    finite = [value for value in values if math.isfinite(value)]
    count = min(cells, len(finite))
    # a cell shows the last of its values, so that the last cell shows the newest value
    shown = [finite[(i + 1) * len(finite) // count - 1] for i in range(count)]
    scale = shown if scale is None else scale
    low, high = min(scale, default=0), max(scale, default=0)
    span = (high - low) or 1.0
    return "".join(_LEVELS[round((value - low) / span * (len(_LEVELS) - 1))] for value in shown)


def _rung_lines(board: Board, width: int) -> list[Text]:
    """Return a bar for each report at which trials were stopped: the number that reached it."""
    reached = Counter(len(trial.reports) for trial in board.searched)
    stopped = [t for t in board.ended + board.paused if not (t.has_finished or t.has_diverged)]
    stops = {len(trial.reports) for trial in stopped} - {0}
    total = max((len(trial.report_steps) for trial in board.trials.values()), default=1)
    rungs = sorted(stops | {total})
    if len(rungs) > 5:  # hyperband stops trials at nearly every report
        rungs = rungs[:: math.ceil(len(rungs) / 5)] + [total] * (rungs[-1] != total)
    cells = max(4, min(_LONGEST_BAR, width - 20))
    lines = []
    for rung in dict.fromkeys([*rungs, total]):
        count = sum(n for reports, n in reached.items() if reports >= rung)
        bar = _bar(count / board.num_trials, cells, rest="")
        lines.append(
            Text.assemble(
                (f"report {rung:>{len(str(total))}} ", "dim"), (bar, "cyan"), (f" {count}", "dim")
            )
        )
    return lines


def _table(board: Board, rows: int, *, is_narrow: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("trial", justify="right", style="dim", no_wrap=True)
    table.add_column("budget", no_wrap=True)
    table.add_column(board.metric, justify="right", no_wrap=True)
    if not is_narrow:
        table.add_column("B", justify="right", style="dim", no_wrap=True)
        table.add_column("peak rate", justify="right", style="dim", no_wrap=True)
    for trial in board.training[:rows]:
        h = trial.spec.hyperparameters
        share = trial.tokens / trial.spec.budget_tokens
        cells = [
            str(trial.number),
            _bar(share, 6 if is_narrow else 16),
            f"{trial.objective(board.metric):.4f}" if trial.last else "",
        ]
        wide = [] if is_narrow else [str(h.batch_size), f"{peak_rate(trial.spec):.2g}"]
        table.add_row(*cells, *wide)
    return table


def _bar(share: float, cells: int, rest: str = "·") -> str:
    eighths = round(8 * cells * min(1.0, share))
    full, part = divmod(eighths, 8)
    bar = "█" * full + (_BARS[part] if part else "")
    return bar.ljust(cells, rest) if rest else bar
