"""What the page says in words and tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from model.spec.hyperparameters import SYMBOL_TABLE
from tuner.conductor.trial import Trial
from tuner.formatting import clock, short_hash, short_run
from tuner.report.figures import value_text
from tuner.report.series import Ending, ReportData, ending
from tuner.results.pareto import pareto_front
from tuner.results.range_edit import numbers
from tuner.results.result import SearchResult
from tuner.space.parameter import Range, symbol


@dataclass(frozen=True)
class Tile:
    """One number of the answer: what it is, the number, and what it means."""

    title: str
    number: str
    note: str
    is_winner: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell of the table of trials.

    Attributes:
        text: as it is shown.
        key: number by which it is sorted; None for a text.
        title: shown on request; the text in full.
        is_number: whether it stands to the right.
    """

    text: str
    key: float | None = None
    title: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class TableRow:
    """One trial of the table."""

    number: int
    ending: Ending
    is_winner: bool
    cells: tuple[Cell, ...]


# the answer --------------------------------------------------------------------------------------


def headline(series: ReportData) -> str:
    """The answer in one line."""
    result = series.result
    if len(result.space.objectives) > 1:
        count = len(_front(result))
        return f"{count} trial{'' if count == 1 else 's'} that no other one beats in everything"
    best, change = result.best, gain(series)
    so_far = "So far, " if result.halted or result.status == "running" else ""
    if best.number == 0:
        told = "no trial beat the defaults"
    elif change is None:
        told = f"trial {best.number} has the best {result.metric}"
    elif change < 0:
        told = f"trial {best.number} is the best, but no better than the defaults"
    else:
        better = "lower" if series.sign > 0 else "higher"
        told = f"trial {best.number}: {result.metric} {change:.1f} % {better} than the defaults"
    return f"{so_far}{told}" if so_far else f"{told[0].upper()}{told[1:]}"


def gain(series: ReportData) -> float | None:
    """By how much the best trial is better than the defaults, in percent of theirs."""
    value, base = series.result.best.objective(series.metric), series.defaults
    if base is None or not base or not math.isfinite(value):
        return None
    return 100 * series.sign * (base - value) / abs(base)


def tiles(series: ReportData) -> list[Tile]:
    """The numbers that count."""
    result = series.result
    several = len(result.space.objectives) > 1
    shown = _best_of_each(result) if several else [_best(result), *_against(series)]
    if result.confirmation is not None and (winner := result.confirmation.winner) is not None:
        spread = (
            f" ±\N{NO-BREAK SPACE}{(winner.high - winner.low) / 2:.4f}" if winner.count > 1 else ""
        )
        seeds = f"mean of {winner.count} fresh seed{'' if winner.count == 1 else 's'}"
        note = f"{seeds}, 95 % interval" if winner.count > 1 else seeds
        shown.append(Tile(f"Confirmed {result.metric}", f"{winner.mean:.4f}{spread}", note))
    return [*shown, _cost(result)]


def _best(result: SearchResult) -> Tile:
    best, metric = result.best, result.metric
    value = best.objective(metric)
    note = f"trial {best.number}"
    if metric == "val_loss" and math.isfinite(value):
        note += f", perplexity {math.exp(min(value, 700)):.1f}"
    sign = result.space.objective.sign
    values = [sign * row.objective(metric) for row in result.trials if row.has_finished]
    is_best = not best.has_finished or sign * value <= min(values)  # fresh seeds chose another one
    title = f"Best {metric}" if is_best else f"{metric} of the winner"
    return Tile(title, _value(value), note, is_winner=True)


def _against(series: ReportData) -> list[Tile]:
    base, change, best = series.defaults, gain(series), series.result.best
    if base is None:
        return [Tile("The defaults", "∞", "trial 0 has no value to compare with")]
    if change is None or best.number == 0:
        return [Tile("The defaults", value_text(base), "trial 0, which no other one beat")]
    better = "lower" if (change >= 0) == (series.sign > 0) else "higher"
    first = series.result.trials[0]
    at = "" if first.has_finished else f" at {first.tokens:,} tokens"
    note = f"they had {_value(base)}{at}"
    return [Tile("Against the defaults", f"{abs(change):.1f} % {better}", note)]


def _best_of_each(result: SearchResult) -> list[Tile]:
    """The best value of each of several objectives."""
    found = []
    for objective in result.space.objectives:
        rows = [r for r in result.trials if r.has_finished]
        rows = [r for r in rows if math.isfinite(r.objective(objective.metric))]
        if rows:
            best = min(rows, key=lambda r: objective.rank(r.objective(objective.metric)))
            value = _value(best.objective(objective.metric))
            found.append(Tile(f"Best {objective.metric}", value, f"trial {best.number}"))
    return found


def _front(result: SearchResult) -> list[Trial]:
    return pareto_front(result.trials, {o.metric: o.mode for o in result.space.objectives})


def _cost(result: SearchResult) -> Tile:
    spent, full = result.tokens_spent, result.tokens_full
    notes = [f"in {clock(result.wall_seconds)}"]
    if result.halted is None and full > spent:
        notes.append(f"{100 * (1 - spent / full):.0f} % spared by stopping early")
    if result.confirmation_tokens:
        notes.append(f"{result.confirmation_tokens:,} more to confirm")
    return Tile("Cost", f"{spent:,} tokens", ", ".join(notes))


def winners(series: ReportData) -> dict[str, Any] | None:
    """The winner's hyperparameters beside the defaults; None of several objectives."""
    result = series.result
    space, best = result.space, result.best
    names = list(dict.fromkeys(p.name for p in space.searched))
    if len(space.objectives) > 1 or not names:
        return None
    defaults = next((row for row in result.trials if row.number == 0), None)
    rows = []
    for name in names:
        ranges = [p.describe() for p in space.searched if p.name == name]
        rows.append(
            {
                "symbol": symbol(name),
                "name": name if name in SYMBOL_TABLE and symbol(name) != name else "",
                "best": best.text_of(name) if _has(best, series, name) else "–",
                "defaults": defaults.text_of(name) if defaults is not None else "",
                "range": " or ".join(ranges),
            }
        )
    return {"number": best.number, "rows": rows, "is_defaults": best.number == 0}


def about(result: SearchResult) -> list[str]:
    """One line below the title."""
    settings = result.space.search
    count = len(result.trials)
    line = [
        str(result.status),
        f"{count} trial{'' if count == 1 else 's'}",
        f"sampler {settings.sampler}",
        f"scheduler {settings.scheduler}",
        f"seed {settings.seed}",
    ]
    if result.started:
        line.append(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.started / 1000)))
    return line


# the table ----------------------------------------------------------------------------------------


def table(series: ReportData) -> tuple[list[str], list[TableRow]]:
    """All trials, those that confirm last: heads, and rows."""
    result = series.result
    metrics = [o.metric for o in result.space.objectives]
    names = list(dict.fromkeys(p.name for p in result.space.searched))
    heads = ["trial", *metrics, "outcome", "reports", "tokens", *map(symbol, names), "run"]
    best = {row.number for row in _front(result)} if len(metrics) > 1 else {result.best.number}
    rows = [
        TableRow(
            row.number,
            ending(row),
            row.number in best,
            (
                Cell(str(row.number), row.number),
                *(_value_cell(row, metric) for metric in metrics),
                Cell(_outcome(row), is_number=False),
                Cell(str(len(row.reports)), len(row.reports)),
                Cell(f"{row.tokens_trained:,}", row.tokens_trained),
                *(_parameter_cell(row, series, name) for name in names),
                _run_cell(result.run_ids.get(row.number)),
            ),
        )
        for row in chain(series.trials, result.confirming)
    ]
    return heads, rows


def _value_cell(row: Trial, metric: str) -> Cell:
    value = row.objective(metric)
    return Cell(_value(value) if row.reports else "–", value if math.isfinite(value) else None)


def _outcome(row: Trial) -> str:
    told = str(row.outcome or "unfinished")
    if row.reused and not row.is_duplicate:
        told += ", recorded"
    if row.parent is not None:
        told += f", went on from {row.parent}"
    return told if row.confirms is None else f"{told}, confirms {row.confirms}"


def _has(row: Trial, series: ReportData, name: str) -> bool:
    """Whether a trial draws a parameter: its `when` may not hold."""
    return any(p.label in row.draw for p in series.result.space.searched if p.name == name)


def _parameter_cell(row: Trial, series: ReportData, name: str) -> Cell:
    if not _has(row, series, name):
        return Cell("–", is_number=_is_number(series, name))
    source = row.spec.hyperparameters if name in SYMBOL_TABLE else row.spec.architecture
    value = getattr(source, name)
    if not _is_number(series, name):
        return Cell(row.text_of(name), is_number=False)
    return Cell(row.text_of(name), float(value))


def _is_number(series: ReportData, name: str) -> bool:
    """Whether a parameter's values have an order."""
    found = [p.distribution for p in series.result.space.searched if p.name == name]
    return all(isinstance(d, Range) or bool(numbers(d)) for d in found)


def _run_cell(run_id: str | None) -> Cell:
    return Cell(short_run(run_id) if run_id else "–", title=run_id or "", is_number=False)


# the fine print -----------------------------------------------------------------------------------


def commands(result: SearchResult) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    best = f"{result.name}/{result.best.number}"
    found = [
        ("tuner ui", "compare the trials in MLflow"),
        (f"tuner replay --search {result.name}", "retrain the winner and prove that it reproduces"),
        (
            f"tuner export {best} --format hf -o exported",
            "take the winner to Hugging Face transformers",
        ),
        (f"tuner generate {best} --prompt 'def '", "let it write"),
    ]
    if result.halted:
        found.insert(0, (f"tuner search --resume {result.name}", "go on where it stopped"))
    elif result.limit:
        option = f"--{result.limit.replace('_', '-')}"
        goes_on = f"tuner search --resume {result.name} {option} N"
        found.insert(0, (goes_on, "go on with a higher limit"))
    return found


def environment(result: SearchResult) -> list[tuple[str, str]]:
    """Where it ran, and on which data."""
    best = result.best.spec
    known: Mapping[str, Any] = result.environment
    facts: Iterable[tuple[str, Any]] = (
        *known.items(),
        ("weights", f"{best.architecture.num_parameters:,}"),
        ("data", short_hash(best.data_fingerprint)),
        ("tokenizer", short_hash(best.tokenizer_fingerprint)),
        ("specification of the winner", short_hash(best.hash)),
        ("inside training", f"{100 * result.training_share:.0f} % of the workers' time"),
    )
    return [(name, str(value)) for name, value in facts]


def _value(value: float) -> str:
    return value_text(value) if math.isfinite(value) else "∞"
