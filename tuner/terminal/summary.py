"""Summary at the end of a search: the best trials, their gain, the cost, the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.conductor.confirmation import Confirmation
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import ArmComparison, p_text
from tuner.results.sentences import MOST_TRIALS, resume_commands, summary_texts
from tuner.space.parameter import symbol
from tuner.terminal.tables import table
from tuner.texts.formatting import counted, metric_text, number

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

_MOST_FRONT = 20


def print_summary(console: Console, result: SearchResult, home: str | None = None) -> None:
    """Print the best trials, their gain, their cost, recommendations and the next commands.

    Args:
        console: output.
        result: result of the search.
        home: value of --home, repeated in the next commands.
    """
    console.print()
    if len(result.space.objectives) > 1:
        console.print(_front(result, console.width))
    else:
        console.print(_best_trials(result, console.width))
    if result.confirmation is not None and result.confirmation.ranked:
        console.print()
        console.print(_confirmed(result, result.confirmation, console.width))
    if result.verdict is not None:
        console.print()
        console.print(_arms(result, result.verdict, console.width))
    console.print()
    for line in summary_texts(result):
        console.print(line, soft_wrap=True, highlight=False)
    if result.advice:
        console.print()
        console.print(Text("Recommendations", style="bold"))
        console.print(_bullets(result.advice))
    console.print()
    for command in _next_commands(result, home):
        console.print(command, soft_wrap=True, highlight=False)


# tables --------------------------------------------------------------------------------------


def _outcome(trial: Trial) -> str:
    """Return the outcome as a cell; reasons of failures stand below the table."""
    if trial.outcome is not None and (trial.has_failed or trial.is_infeasible):
        return str(trial.outcome.kind)
    outcome = str(trial.outcome or "")
    return f"{outcome}, reused" if trial.reused and not trial.is_duplicate else outcome


def _best_trials(result: SearchResult, width: int) -> RenderableType:
    names = result.space.searched_names
    rows = [
        [
            trial.number,
            metric_text(trial.objective(result.metric)) if trial.last else "",
            _outcome(trial),
            *(trial.text_of(name) for name in names),
        ]
        for trial in result.ranked[:MOST_TRIALS]
    ]
    columns = ["trial", result.metric, "outcome", *map(symbol, names)]
    count = len(result.trials)
    title = f"{result.name}: the best of {count} trials" if count > 1 else f"{result.name}: 1 trial"
    return table(title, columns, rows, width)


def _front(result: SearchResult, width: int) -> RenderableType:
    """Return the Pareto front: trials that no other trial beats in every objective."""
    names, front = result.space.searched_names, result.front
    metrics = [objective.metric for objective in result.space.objectives]
    rows = [
        [
            trial.number,
            *(number(trial.objective(metric)) for metric in metrics),
            *(trial.text_of(name) for name in names),
        ]
        for trial in front[:_MOST_FRONT]
    ]
    title = f"{result.name}: Pareto front of {counted(len(result.trials), 'trial')}"
    if len(front) > len(rows):
        title += f" ({len(rows)} of {len(front)})"
    return table(title, ["trial", *metrics, *map(symbol, names)], rows, width)


def _confirmed(result: SearchResult, confirmation: Confirmation, width: int) -> RenderableType:
    """Return the retrained configurations, the winner first."""
    trials = {trial.number: trial for trial in result.trials}
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


def _arms(result: SearchResult, verdict: ArmComparison, width: int) -> RenderableType:
    """Return the arms of a comparison, the best first, with the gain of the best over each."""
    differences = {each.arm: each for each in verdict.differences}
    rows = []
    for each in verdict.arms:
        best, difference = each.best, differences.get(each.arm)
        retrained = ["", ""] if best is None else [best.number, metric_text(best.mean)]
        compared = ["", "", "the best" if each is verdict.arms[0] else ""]
        if difference is not None and difference.gain is not None and difference.p is not None:
            gain = difference.gain
            span = f"{gain.mean:.2f} ({gain.low:.2f} … {gain.high:.2f})"
            compared = [span, p_text(difference.p), difference.verdict]
        rows.append([each.arm.text, each.trials, f"{each.tokens:,}", *retrained, *compared])
    columns = [
        symbol(verdict.by), "trials", "tokens", "its best", f"retrained {result.metric}",
        "the best gains %", "p", "the best is",
    ]  # fmt: skip
    return table("arms of the comparison", columns, rows, width)


def _padded(values: Sequence[float | None], count: int) -> Sequence[float | None]:
    return (*values, *[None] * (count - len(values)))


# recommendations and commands ----------------------------------------------------------------


def _bullets(lines: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("-", Text(line))
    return grid


def _next_commands(result: SearchResult, home: str | None) -> list[Text]:
    """Return the next commands, one a line; lines never wrap, so that they can be copied."""
    option = f" --home {shlex.quote(home)}" if home else ""
    replayed = "confirmed winner" if result.confirmation else "best trial"
    commands = [
        *resume_commands(result),
        ("tuner ui", "compare the trials in MLflow"),
        ("tuner replay", f"retrain the {replayed} and verify that it reproduces"),
        (f"tuner show --search {result.name}", "list all trials"),
        (f"tuner report --search {result.name}", "write a page with plots"),
        (f"tuner transfer {result.name} --check", "measure whether the proxy stands for its target")
        if result.space.proxy
        else (
            f"tuner export --search {result.name} -o exported",
            "export the winner to Hugging Face",
        ),
    ]
    if result.problem:  # the commands below read what the record has
        sync = f"tuner sync {result.name}"
        commands.insert(0, (sync, "first: send what MLflow lacks, once it answers"))
    width = max(len(command) for command, _ in commands) + len(option)
    return [
        Text.assemble(
            (f"  {command + option:<{width}}", "bold cyan"),
            "   ",
            (meaning, "dim"),
            overflow="ignore",
        )
        for command, meaning in commands
    ]
