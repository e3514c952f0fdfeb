"""What is printed at the end of a search, and the tables of other commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.conductor.confirmation import Confirmation
from tuner.conductor.trial import Trial
from tuner.formatting import metric_text, number
from tuner.results.pareto import pareto_front
from tuner.results.sentences import MOST_TRIALS, summary_texts
from tuner.space.objective import Metric, Mode
from tuner.space.parameter import symbol
from tuner.terminal.tables import table

if TYPE_CHECKING:  # it would load torch for a table
    from tuner.results.result import SearchResult

_MOST_FRONT = 20


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
    for line in summary_texts(result):
        console.print(line, soft_wrap=True, highlight=False)
    if result.advice:
        console.print()
        console.print(Text("What the trials advise", style="bold"))
        console.print(_bullets(result.advice))
    console.print()
    for command in _next_commands(result, home):
        console.print(command, soft_wrap=True, highlight=False)


# tables --------------------------------------------------------------------------------------


def _searched(result: SearchResult) -> list[str]:
    return list(dict.fromkeys(p.name for p in result.space.searched))


def _outcome(row: Trial) -> str:
    """How a trial ended, as a cell; what failed is told below the table."""
    if row.has_failed:
        return "failed"
    told = str(row.outcome or "")
    return f"{told}, recorded" if row.reused and not row.is_duplicate else told


def _best_trials(result: SearchResult, width: int) -> RenderableType:
    names = _searched(result)
    rows = [
        [
            row.number,
            metric_text(row.objective(result.metric)),
            _outcome(row),
            *(row.text_of(name) for name in names),
        ]
        for row in result.ranked[:MOST_TRIALS]
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
            *(row.text_of(name) for name in names),
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
            metric_text(entry.mean),
            f"{entry.low:.4f} … {entry.high:.4f}" if entry.count > 1 else "",
            *("" if v is None else metric_text(v) for v in _padded(entry.values, seeds)),
            metric_text(trials[entry.number].objective(result.metric))
            if entry.number in trials
            else "",
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
