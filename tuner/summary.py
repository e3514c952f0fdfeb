"""What is printed at the end of a search, and the tables of other commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from model.hyperparameters import SYMBOL_TABLE, FractionOf, Row
from tuner.board import TrialRow
from tuner.confirmation import Confirmation, sentences
from tuner.front import pareto_front
from tuner.messages import clock
from tuner.objective import Metric, Mode
from tuner.parameters import symbol

if TYPE_CHECKING:  # it would load torch for a table
    from tuner.result import SearchResult

_MOST_TRIALS = 8
_MOST_FRONT = 20


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


def raw_value(row: TrialRow, name: str) -> Any:
    """A hyperparameter or size of a trial."""
    source = row.spec.hyperparameters if name in SYMBOL_TABLE else row.spec.architecture
    return getattr(source, name)


def value_of(row: TrialRow, name: str) -> str:
    """The same as text."""
    value = raw_value(row, name)
    return number(value) if isinstance(value, int | float) else str(value)


def print_summary(console: Console, result: SearchResult, home: str | None = None) -> None:
    """The best trials, what they are worth, what they cost, and what to do next.

    Args:
        console: where to.
        result: what the search found.
        home: as the user gave it, for the next commands to find it.
    """
    objectives = {o.metric: o.mode for o in result.space.objectives}
    several = len(objectives) > 1
    console.print()
    if several:
        console.print(_front(result, objectives, console.width))
    else:
        console.print(_best_trials(result, console.width))
    if result.confirmation is not None and result.confirmation.ranked:
        console.print()
        console.print(_confirmed(result, result.confirmation, console.width))
    console.print()
    gain = [] if several else [*_gain(result), *_confirmation_lines(result)]
    for line in (*gain, *_cost(result), *_endings(result)):
        console.print(line, soft_wrap=True, highlight=False)
    if result.advice:
        console.print()
        console.print(Text("What the trials advise", style="bold"))
        console.print(_bullets(result.advice))
    console.print()
    for command in _next_commands(result, home):
        console.print(command, soft_wrap=True, highlight=False)


def told(result: SearchResult) -> list[str]:
    """The same in sentences, without tables: the gain, the confirmation, the cost, the endings."""
    gain = _gain(result) if len(result.space.objectives) == 1 else []
    lines = (*gain, *_confirmation_lines(result), *_cost(result), *_endings(result))
    return [line.plain for line in lines if isinstance(line, Text)]


# tables --------------------------------------------------------------------------------------


def _sign(result: SearchResult) -> int:
    return -1 if result.space.objective.mode == "max" else 1


def _loss(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.4f}"


def _searched(result: SearchResult) -> list[str]:
    return list(dict.fromkeys(p.name for p in result.space.searched))


def _outcome(row: TrialRow) -> str:
    """How a trial ended, as a cell; what failed is told below the table."""
    if row.failed:
        return "failed"
    told = row.outcome or ""
    return f"{told}, recorded" if row.recorded and not told.startswith("same as") else told


def _best_trials(result: SearchResult, width: int) -> RenderableType:
    names = _searched(result)
    rows = [
        [
            row.number,
            _loss(row.objective(result.metric)),
            _outcome(row),
            *(value_of(row, name) for name in names),
        ]
        for row in result.ranked[:_MOST_TRIALS]
    ]
    columns = ["trial", result.metric, "outcome", *map(symbol, names)]
    title = f"{result.name}: the best of {len(result.trials)} trials"
    return table(title, columns, rows, width)


def _front(result: SearchResult, objectives: Mapping[Metric, Mode], width: int) -> RenderableType:
    """The trials of which no other is better in every objective."""
    names, front = _searched(result), pareto_front(result.trials, objectives)
    rows = [
        [
            row.number,
            *(number(row.objective(metric)) for metric in objectives),
            *(value_of(row, name) for name in names),
        ]
        for row in front[:_MOST_FRONT]
    ]
    title = f"{result.name}: of {len(result.trials)} trials no other is better in every objective"
    if len(front) > len(rows):
        title += f" ({len(rows)} of {len(front)})"
    return table(title, ["trial", *objectives, *map(symbol, names)], rows, width)


def _confirmed(result: SearchResult, confirmation: Confirmation, width: int) -> RenderableType:
    """The configurations that were retrained, the winner first."""
    trials = {row.number: row for row in result.trials}
    seeds = max(len(entry.values) for entry in confirmation.ranked)
    rows = [
        [
            entry.number,
            _loss(entry.mean),
            f"{entry.low:.4f} … {entry.high:.4f}" if entry.count > 1 else "",
            *("" if v is None else _loss(v) for v in _padded(entry.values, seeds)),
            _loss(trials[entry.number].objective(result.metric)) if entry.number in trials else "",
        ]
        for entry in confirmation.ranked
    ]
    columns = [
        "trial",
        f"mean {result.metric}",
        "95 % interval",
        *(f"seed {i + 1}" for i in range(seeds)),
        "in the search",
    ]
    return table(f"retrained with {seeds} fresh seeds", columns, rows, width)


def _padded(values: Sequence[float | None], count: int) -> Sequence[float | None]:
    return (*values, *[None] * (count - len(values)))


# sentences -----------------------------------------------------------------------------------


def _gain(result: SearchResult) -> list[RenderableType]:
    best, defaults, sign = result.best, result.trials[0], _sign(result)
    value, base = best.objective(result.metric), defaults.objective(result.metric)
    moved = [symbol(p.name) for p in result.space.moved()]
    note = f" (moved into your ranges: {', '.join(moved)})" if moved else ""
    if best is defaults:
        return [Text(f"No trial beat the defaults of the symbol table{note}: {value:.4f}.")]
    if math.isinf(base):
        return [Text(f"Best {result.metric} {value:.4f}; the defaults{note} {defaults.outcome}.")]
    at = "" if defaults.has_finished else f" at {defaults.tokens:,} tokens"
    values = [sign * row.objective(result.metric) for row in result.trials if row.has_finished]
    is_best = not best.has_finished or sign * value <= min(values)
    change = 100 * sign * (base - value) / abs(base) if base else 0.0
    better = "lower" if sign == 1 else "higher"
    worse = "higher" if sign == 1 else "lower"
    line = Text.assemble(
        ("Best " if is_best else f"Trial {best.number} has ", ""),
        (f"{result.metric} {value:.4f}", "bold green"),
        f" against {base:.4f}{at} of the defaults{note}: {abs(change):.1f} % "
        f"{better if change >= 0 else worse}",
    )
    if result.metric == "val_loss":
        line.append(
            f" (perplexity {math.exp(min(value, 700)):.1f} against {math.exp(min(base, 700)):.1f})"
        )
    return [line.append("."), *_writing(best)]


def _writing(best: TrialRow) -> list[RenderableType]:
    """How well an encoder–decoder writes."""
    last = best.reports[-1]
    if last.token_accuracy is None:
        return []
    score = "" if last.bleu is None else f"; BLEU {last.bleu:.1f} on what it writes greedily"
    return [f"It predicts {100 * last.token_accuracy:.1f} % of the target's tokens right{score}."]


def _confirmation_lines(result: SearchResult) -> list[RenderableType]:
    """Who won with fresh seeds, and whether the first two can be told apart."""
    if result.confirmation is None:
        return []
    selected = {
        row.number: row.objective(result.metric)
        for row in result.trials
        if result.confirmation.of(row.number) is not None
    }
    return [Text(line) for line in sentences(result.confirmation, result.metric, selected)]


def _cost(result: SearchResult) -> list[RenderableType]:
    spent, full = result.tokens_spent, result.tokens_full
    diverged = sum(row.has_diverged for row in result.trials)
    trained = f"Trained {spent:,} tokens in {clock(result.wall_seconds)}"
    if result.halted is None and full:
        share = 100 * (1 - spent / full)
        trained += f"; early stopping spared {share:.0f} % of the full budget of {full:,}"
    if result.confirmation_tokens:
        trained += f"; the confirmation took another {result.confirmation_tokens:,} tokens"
    verb = "trial" if diverged == 1 else "trials"
    return [
        Text(f"{trained}." + (f" {diverged} {verb} diverged." if diverged else "")),
        Text(f"The workers spent {100 * result.training_share:.0f} % of the time inside training."),
    ]


def _endings(result: SearchResult) -> list[RenderableType]:
    """Why the search ended early, what it did not train, and what failed."""
    lines = []
    settings, reason = result.space.search, result.halted or result.limit
    limit = {
        "max_tokens": f"--max-tokens: {settings.max_tokens or 0:,} tokens were trained",
        "max_seconds": f"--max-time: it had {clock(settings.max_seconds or 0)}",
        "patience": f"--patience: {settings.patience} trials ended without a better one",
    }
    if reason:
        ended = sum(row.outcome is not None for row in result.trials)
        why = f"Stopped by {limit[reason]}" if reason in limit else reason.capitalize()
        lines.append(Text(f"{why}. {ended} of {len(result.trials)} trials had ended."))
    recorded = [row for row in result.trials if row.recorded]
    if recorded:
        verb = "trial was" if len(recorded) == 1 else "trials were"
        which = ", ".join(
            f"{row.number} ({row.outcome})" if (row.outcome or "").startswith("same as")
            else str(row.number)
            for row in recorded
        )  # fmt: skip
        lines.append(Text(f"{len(recorded)} {verb} taken from the record, not trained: {which}."))
    failures: dict[str, list[int]] = {}
    for row in result.trials:
        if row.failed:
            failures.setdefault(str(row.outcome).partition(": ")[2], []).append(row.number)
    for why, rows in failures.items():
        which = f"Trial {rows[0]}" if len(rows) == 1 else f"{len(rows)} trials ({_few(rows)})"
        lines.append(Text(f"{which} failed: {why or 'for no known reason'}.", style="red"))
    return [*lines]


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_TRIALS]))
    return f"{shown}, …" if len(numbers) > _MOST_TRIALS else shown


def _bullets(lines: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("-", Text(line))
    return grid


def _next_commands(result: SearchResult, home: str | None) -> list[Text]:
    """What to type next, on lines that are never broken: they are there to be copied."""
    at = f" --home {shlex.quote(home)}" if home else ""
    replayed = "confirmed winner" if result.confirmation else "best trial"
    commands = [
        ("tuner ui", "compare the trials in MLflow"),
        ("tuner replay", f"retrain the {replayed} and prove that it reproduces"),
        (f"tuner show --search {result.name}", "see all trials here"),
        (f"tuner report --search {result.name}", "write one page with pictures of all this"),
        (f"tuner export --search {result.name} -o exported", "write the winner for Hugging Face"),
    ]
    if result.halted:
        commands.insert(0, (f"tuner search --resume {result.name}", "go on where it stopped"))
    elif result.limit:
        option = f"--{result.limit.replace('_', '-')}"
        commands.insert(
            0, (f"tuner search --resume {result.name} {option} N", "go on with a higher limit")
        )
    width = max(len(command) for command, _ in commands) + len(at)
    return [
        Text.assemble(
            (f"  {command + at:<{width}}", "bold cyan"), "   ", (meaning, "dim"), overflow="ignore"
        )
        for command, meaning in commands
    ]


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
