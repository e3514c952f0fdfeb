"""Texts and tables of the page: the answer, the table of trials, commands, environment."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from model.engine.report import ADAPTER_METRICS
from model.spec.hyperparameters import SYMBOL_TABLE
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import headline as verdict_headline
from tuner.report.picture import value_text
from tuner.report.series import Ending, ReportData, ending
from tuner.results.comparison import (
    compare_with_defaults,
    has_best_value,
    only_defaults_finished,
)
from tuner.results.range_edit import numbers
from tuner.results.result import SearchResult
from tuner.results.sentences import resume_commands
from tuner.space.parameter import Range, symbol
from tuner.texts.formatting import clock, counted, short_hash, short_run


@dataclass(frozen=True)
class Tile:
    """One number of the answer: its title, the number, and a note."""

    title: str
    number: str
    note: str
    is_winner: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell of the table of trials.

    Attributes:
        text: text shown.
        key: number to sort by; None for a text.
        title: full text, shown on hover.
        is_number: True if the cell is aligned right.
    """

    text: str
    key: float | None = None
    title: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class TrialCells:
    """Row of the table: one trial."""

    number: int
    ending: Ending
    is_winner: bool
    cells: tuple[Cell, ...]


# the answer --------------------------------------------------------------------------------------


def headline(series: ReportData) -> str:
    """Return the answer in one line."""
    result = series.result
    if len(result.space.objectives) > 1:
        return f"{counted(len(result.front), 'trial')} on the Pareto front"
    if result.verdict is not None:
        return verdict_headline(result.verdict)
    best, change = result.best, gain(series)
    so_far = "So far, " if result.halted or result.status == "running" else ""
    if best is result.defaults and only_defaults_finished(result):
        answer = "no trial but the defaults was trained to the end"
    elif best is result.defaults:
        answer = "no trial beat the defaults"
    elif change is None:
        answer = f"trial {best.number} has the best {result.metric}"
    elif change < 0:
        answer = f"trial {best.number} is the best, but not better than the defaults"
    else:
        better = "lower" if series.sign > 0 else "higher"
        answer = f"trial {best.number}: {result.metric} {change:.1f} % {better} than the defaults"
    return f"{so_far}{answer}" if so_far else f"{answer[0].upper()}{answer[1:]}"


def gain(series: ReportData) -> float | None:
    """Return the improvement of the best trial over the defaults, in percent.

    Returns:
        None if trial 0 is the best, has no finite value, or has no report after equal training.
    """
    comparison = compare_with_defaults(series.result)
    return None if comparison is None else comparison.change


def tiles(series: ReportData) -> list[Tile]:
    """Return the main numbers of the answer."""
    result = series.result
    several = len(result.space.objectives) > 1
    main = _best_of_each(result) if several else [_best(result), *_against(series)]
    if result.confirmation is not None and (winner := result.confirmation.winner) is not None:
        spread = (
            f" ±\N{NO-BREAK SPACE}{(winner.high - winner.low) / 2:.4f}" if winner.count > 1 else ""
        )
        seeds = f"mean of {counted(winner.count, 'fresh seed')}"
        note = f"{seeds}, 95 % interval" if winner.count > 1 else seeds
        main.append(Tile(f"Confirmed {result.metric}", f"{winner.mean:.4f}{spread}", note))
    return [*main, _cost(result)]


def _best(result: SearchResult) -> Tile:
    best, metric = result.best, result.metric
    value = best.objective(metric)
    note = f"trial {best.number}"
    if metric == "val_loss" and math.isfinite(value):
        note += f", perplexity {math.exp(min(value, 700)):.1f}"
    if not best.has_finished:
        title = f"{result.space.objective.lowest.capitalize()} {metric}"
        note = f"trial {best.number} at report {best.place} of {best.num_places}"
        return Tile(title, _value(value), note, is_winner=True)
    title = f"Best {metric}" if has_best_value(result) else f"{metric} of the winner"
    return Tile(title, _value(value), note, is_winner=True)


def _against(series: ReportData) -> list[Tile]:
    base, comparison = series.defaults, compare_with_defaults(series.result)
    if series.result.defaults is None:
        return []
    if comparison is None and series.result.best.number == 0:
        return [Tile("Defaults", "–" if base is None else value_text(base), "trial 0 is the best")]
    if comparison is None:
        return [Tile("Defaults", "∞", "trial 0 has no value to compare with")]
    better = "lower" if (comparison.change >= 0) == (series.sign > 0) else "higher"
    at = "" if comparison.is_final else f", both at report {comparison.place}"
    note = f"defaults: {_value(comparison.defaults)}{at}"
    value = f"{abs(comparison.change):.1f} % {better}"
    return [Tile("Compared with the defaults", value, note)]


def _best_of_each(result: SearchResult) -> list[Tile]:
    """Return the best value of each of several objectives."""
    best_tiles = []
    for objective in result.space.objectives:
        sign = objective.sign
        trials = [t for t in result.trials if t.has_finished]
        trials = [t for t in trials if math.isfinite(t.objective(objective.metric))]
        if trials:
            best = min(trials, key=lambda t: sign * t.objective(objective.metric))
            value = _value(best.objective(objective.metric))
            best_tiles.append(Tile(f"Best {objective.metric}", value, f"trial {best.number}"))
    return best_tiles


def _cost(result: SearchResult) -> Tile:
    spent, full = result.tokens_spent, result.tokens_full
    notes = [f"in {clock(result.wall_seconds)}"]
    if result.halted is None and full > spent:
        notes.append(f"{100 * (1 - spent / full):.0f} % saved by early stopping")
    if result.confirmation_tokens:
        notes.append(f"{result.confirmation_tokens:,} more for the confirmation")
    return Tile("Cost", f"{spent:,} tokens", ", ".join(notes))


def winners(series: ReportData) -> dict[str, Any] | None:
    """Return the hyperparameters of the winner and the defaults; None for several objectives."""
    result = series.result
    space, best = result.space, result.best
    if len(space.objectives) > 1 or not space.searched:
        return None
    defaults = result.defaults
    rows = [
        {
            "symbol": symbol(name),
            "name": name if name in SYMBOL_TABLE and symbol(name) != name else "",
            "best": _ParameterColumn.of(series, name).cell(best).text,
            "defaults": defaults.text_of(name) if defaults is not None else "",
            "range": space.range_text(name),
        }
        for name in space.searched_names
    ]
    return {
        "number": best.number,
        "rows": rows,
        "is_defaults": best is defaults,
        "has_defaults": defaults is not None and best is not defaults,
    }


def about(result: SearchResult) -> list[str]:
    """Return the parts of the line below the title."""
    settings = result.space.search
    line = [
        str(result.status), counted(len(result.trials), "trial"), f"sampler {settings.sampler}",
        f"scheduler {settings.scheduler}", f"seed {settings.seed}",
    ]  # fmt: skip
    if result.started:
        line.append(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.started / 1000)))
    return line


# the table ----------------------------------------------------------------------------------------


def table(
    series: ReportData, chosen: Collection[int] | None = None
) -> tuple[list[str], list[bool], list[TrialCells]]:
    """Return the table of all trials, those of the confirmation last.

    Args:
        series: the search.
        chosen: numbers of the trials to give rows to; None for all.

    Returns:
        Heads; whether the cells of each column are numbers; rows.
    """
    result = series.result
    metrics = [o.metric for o in result.space.objectives]
    names = result.space.searched_names
    columns = [_ParameterColumn.of(series, name) for name in names]
    trials = [*series.trials, *result.branches, *result.confirming]
    changes = [
        n for n in ADAPTER_METRICS if any(t.last and t.last.metric(n) is not None for t in trials)
    ]
    heads = [
        "trial", *metrics, *changes, "outcome", "reports", "tokens", *map(symbol, names), "run"
    ]  # fmt: skip
    are_numbers = [
        *[True] * (1 + len(metrics) + len(changes)), False, True, True,
        *(c.is_number for c in columns), False,
    ]  # fmt: skip
    best = {trial.number for trial in result.front} if len(metrics) > 1 else {result.best.number}
    rows = [
        TrialCells(
            trial.number,
            ending(trial),
            trial.number in best,
            (
                Cell(str(trial.number), trial.number),
                *(_value_cell(trial, metric) for metric in metrics),
                *(_change_cell(trial, metric) for metric in changes),
                Cell(outcome_text(trial, is_on=result.status == "running"), is_number=False),
                Cell(str(len(trial.reports)), len(trial.reports)),
                Cell(f"{trial.tokens_trained:,}", trial.tokens_trained),
                *(column.cell(trial) for column in columns),
                _run_cell(result.run_ids.get(trial.number)),
            ),
        )
        for trial in trials
        if chosen is None or trial.number in chosen
    ]
    return heads, are_numbers, rows


def _value_cell(trial: Trial, metric: str) -> Cell:
    value = trial.objective(metric)
    return Cell(_value(value) if trial.reports else "–", value if math.isfinite(value) else None)


def _change_cell(trial: Trial, metric: str) -> Cell:
    """Return a cell with what LoRA changed, at the last report."""
    value = trial.last.metric(metric) if trial.last else None
    return Cell("–" if value is None else f"{value:.3g}", value)


def outcome_text(trial: Trial, *, is_on: bool = False) -> str:
    """Return how a trial ended.

    Args:
        trial: the trial.
        is_on: True if its search runs, so that a trial without an end may go on.
    """
    text = str(trial.outcome or "unfinished")
    if is_on and trial.outcome is None:
        text = "paused" if trial.is_paused else "in training"
    if trial.reused and not trial.is_duplicate:
        text += ", reused"
    if trial.is_cool_down:
        text += f" after {trial.spec.budget_tokens:,} tokens, cooled down from trial {trial.parent}"
    elif trial.parent is not None:
        text += f", continued trial {trial.parent}"
    return text if trial.confirms is None else f"{text}, confirms {trial.confirms}"


@dataclass(frozen=True)
class _ParameterColumn:
    """Column of a searched parameter: its name, its labels in draws, whether it has numbers."""

    name: str
    labels: frozenset[str]
    is_number: bool

    @classmethod
    def of(cls, series: ReportData, name: str) -> _ParameterColumn:
        those = [p for p in series.result.space.searched if p.name == name]
        kinds = [p.distribution for p in those]
        is_number = all(isinstance(kind, Range) or bool(numbers(kind)) for kind in kinds)
        return cls(name, frozenset(p.label for p in those), is_number)

    def cell(self, trial: Trial) -> Cell:
        if self.labels.isdisjoint(trial.draw):  # its condition does not hold
            return Cell("–", is_number=self.is_number)
        text, value = trial.text_of(self.name), trial.value_of(self.name)
        return Cell(text, float(value) if self.is_number else None, is_number=self.is_number)


def _run_cell(run_id: str | None) -> Cell:
    return Cell(short_run(run_id) if run_id else "–", title=run_id or "", is_number=False)


# details -----------------------------------------------------------------------------------------


def commands(result: SearchResult) -> list[tuple[str, str]]:
    """Return the next commands and their meanings."""
    best = f"{result.name}/{result.best.number}"
    # other models continue an empty text, whatever their data is
    prompt = " --prompt TEXT" if result.best.spec.architecture.n_encoder_layers else ""
    return [
        *resume_commands(result),
        ("tuner ui", "compare the trials in MLflow"),
        (
            f"tuner replay --search {result.name}",
            "retrain the winner and verify that it reproduces",
        ),
        (
            f"tuner export {best} --format hf -o exported",
            "export the winner to Hugging Face transformers",
        ),
        (f"tuner generate {best}{prompt}", "generate text with the winner"),
    ]


def environment(result: SearchResult) -> list[tuple[str, str]]:
    """Return facts of the machine, the data and the winner."""
    best = result.best.spec
    return [
        *((name, str(value)) for name, value in result.environment.items()),
        ("weights", f"{best.architecture.num_parameters:,}"),
        ("data", short_hash(best.data_fingerprint)),
        ("tokenizer", short_hash(best.tokenizer_fingerprint)),
        ("specification of the winner", short_hash(best.hash)),
        ("time in training", f"{100 * result.training_share:.0f} % of the workers' time"),
    ]


def _value(value: float) -> str:
    return value_text(value) if math.isfinite(value) else "∞"
