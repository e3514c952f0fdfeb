"""What is printed at the end of a search, and the tables of other commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from model.hyperparameters import SYMBOL_TABLE, FractionOf, Row
from tuner.board import TrialRow
from tuner.messages import clock
from tuner.parameters import symbol
from tuner.space import SearchSpace

if TYPE_CHECKING:  # it would load torch for a table
    from tuner.result import SearchResult

_MOST_TRIALS = 8


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    width: int | None = None,
) -> RenderableType:
    """A plain table, texts to the left and numbers to the right.

    Args:
        title: above it.
        columns: heads.
        rows: cells of any kind, written with str().
        width: if the table would be wider, its last columns are left out and a line says so;
            None lets long cells wrap instead.
    """
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) + 2 for cells in zip(columns, *lines, strict=True)]
    shown = len(columns)
    while width is not None and shown > 1 and sum(widths[:shown]) > width:
        shown -= 1
    result = Table(title=title, box=None, title_justify="left", title_style="bold", pad_edge=False)
    for index, column in enumerate(columns[:shown]):
        numeric = bool(lines) and all(_is_numeric(line[index]) for line in lines)
        result.add_column(
            Text(column), justify="right" if numeric else "left", no_wrap=width is not None
        )
    for line in lines:
        result.add_row(*map(Text, line[:shown]))
    if shown == len(columns):
        return result
    hidden = ", ".join(columns[shown:])
    return Group(result, Text(f"not shown for want of width: {hidden}", style="dim"))


def _is_numeric(text: str) -> bool:
    return text == "" or text[0].isdigit() or (text[0] in "-∞" and text[1:2].isdigit())


def number(value: float) -> str:
    """A number as a person writes it: 0.0123, 3.2e-05, 16; or true and false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def number_in(text: str) -> str:
    """A text of the record, written as a person would if it is a number."""
    try:
        return number(float(text))
    except ValueError:
        return text


def value_of(row: TrialRow, name: str) -> str:
    """A hyperparameter or size of a trial, as text."""
    source = row.spec.hyperparameters if name in SYMBOL_TABLE else row.spec.architecture
    value = getattr(source, name)
    return number(value) if isinstance(value, int | float) else str(value)


def print_summary(
    console: Console, result: SearchResult, space: SearchSpace, home: str | None = None
) -> None:
    """The best trials, the gain over the defaults, what was spared, and what to do next.

    Args:
        console: where to.
        result: what the search found.
        space: what it searched.
        home: as the user gave it, for the next commands to find it.
    """
    names = list(dict.fromkeys(p.name for p in space.searched))
    ranked = sorted(result.trials, key=lambda r: (not r.has_finished, r.objective(result.metric)))
    rows = [
        [
            row.number,
            "∞"
            if math.isinf(row.objective(result.metric))
            else f"{row.objective(result.metric):.4f}",
            row.outcome or "",
            *(value_of(row, name) for name in names),
        ]
        for row in ranked[:_MOST_TRIALS]
    ]
    columns = ["trial", result.metric, "outcome", *map(symbol, names)]
    console.print()
    title = f"{result.name}: the best of {len(result.trials)} trials"
    console.print(table(title, columns, rows, console.width))
    console.print()
    for line in (*_gain(result, space), *_cost(result)):
        console.print(line, soft_wrap=True, highlight=False)
    console.print()
    console.print(_next_commands(result.name, home))


def _gain(result: SearchResult, space: SearchSpace) -> list[RenderableType]:
    best, defaults = result.best, result.trials[0]
    value, base = best.objective(result.metric), defaults.objective(result.metric)
    moved = [symbol(p.name) for p in space.moved()]
    note = f" (moved into your ranges: {', '.join(moved)})" if moved else ""
    if best is defaults:
        return [Text(f"No trial beat the defaults of the symbol table{note}: {value:.4f}.")]
    if math.isinf(base):
        return [Text(f"Best {result.metric} {value:.4f}; the defaults{note} {defaults.outcome}.")]
    at = "" if defaults.has_finished else f" at {defaults.tokens:,} tokens"
    line = Text.assemble(
        ("Best ", ""),
        (f"{result.metric} {value:.4f}", "bold green"),
        f" against {base:.4f}{at} of the defaults{note}: {100 * (base - value) / base:.1f} % lower",
    )
    if result.metric == "val_loss":
        line.append(f" (perplexity {math.exp(value):.1f} against {math.exp(min(base, 700)):.1f})")
    return [line.append("."), *_writing(best)]


def _writing(best: TrialRow) -> list[RenderableType]:
    """How well an encoder–decoder writes."""
    last = best.reports[-1]
    if last.token_accuracy is None:
        return []
    score = "" if last.bleu is None else f"; BLEU {last.bleu:.1f} on what it writes greedily"
    return [f"It predicts {100 * last.token_accuracy:.1f} % of the target's tokens right{score}."]


def _cost(result: SearchResult) -> list[RenderableType]:
    spent, full = result.tokens_spent, result.tokens_full
    diverged = sum(row.has_diverged for row in result.trials)
    trained = f"Trained {spent:,} tokens in {clock(result.wall_seconds)}"
    if result.interrupted:
        ended = sum(row.outcome != "interrupted" for row in result.trials)
        trained = f"Interrupted: {ended} trials had ended. {trained}."
    else:
        share = 100 * (1 - spent / full)
        trained += f"; early stopping spared {share:.0f} % of the full budget of {full:,}."
    failures = [row.outcome for row in result.trials if row.outcome and "failed" in row.outcome]
    return [
        trained + (f" {diverged} trials diverged." if diverged else ""),
        *([Text(f"{len(failures)} trials {failures[0]}.", style="red")] if failures else []),
        f"The workers spent {100 * result.training_share:.0f} % of the time inside training.",
    ]


def _next_commands(search: str, home: str | None) -> Table:
    at = f" --home {shlex.quote(home)}" if home else ""
    grid = Table.grid(padding=(0, 3))
    for command, meaning in (
        ("tuner ui", "compare the trials in MLflow"),
        ("tuner replay", "retrain the best trial and prove that it reproduces"),
        (f"tuner show --search {search}", "see all trials here"),
    ):
        grid.add_row(Text(f"  {command}{at}", style="bold cyan"), Text(meaning, style="dim"))
    return grid


def range_of(entry: FieldInfo) -> str:
    """What an entry of `model:` may be: `[1, 1024]`, `pre | post`, `true | false`."""
    if entry.annotation is bool:
        return "true | false"
    if get_origin(entry.annotation) is Literal:
        return " | ".join(get_args(entry.annotation))
    limits = {
        name: getattr(item, name)
        for item in entry.metadata
        for name in ("gt", "ge", "le")
        if hasattr(item, name)
    }
    left = f"({limits['gt']:g}" if "gt" in limits else f"[{limits['ge']}"
    return f"{left}, {limits['le']:g}]" if "le" in limits else f"{left}, ∞)"


def default_of(row: Row) -> str:
    """A row's default as text: a number, `0.1·α_max`, or what the budget gives."""
    if row.default is None:
        return "from the budget"
    if isinstance(row.default, FractionOf):
        share = "" if row.default.share == 1 else f"{row.default.share:g}·"
        return f"{share}{SYMBOL_TABLE[row.default.name].symbol}"
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)
