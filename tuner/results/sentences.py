"""Sentences about the result of a search, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from tuner.conductor.confirmation import summary
from tuner.conductor.trial import Trial
from tuner.formatting import clock
from tuner.space.parameter import symbol

if TYPE_CHECKING:
    from tuner.results.result import SearchResult


_MOST_TRIALS = 8


def told(result: SearchResult) -> list[str]:
    """The same in sentences, without tables: the gain, the confirmation, the cost, the endings."""
    gain = _gain(result) if len(result.space.objectives) == 1 else []
    lines = (*gain, *_confirmation_lines(result), *_cost(result), *_endings(result))
    return [line.plain for line in lines if isinstance(line, Text)]


def _sign(result: SearchResult) -> int:
    return -1 if result.space.objective.mode == "max" else 1


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


def _writing(best: Trial) -> list[RenderableType]:
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
    return [Text(line) for line in summary(result.confirmation, result.metric, selected)]


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
    recorded = [row for row in result.trials if row.reused]
    if recorded:
        verb = "trial was" if len(recorded) == 1 else "trials were"
        which = ", ".join(
            f"{row.number} ({row.outcome})" if row.is_duplicate else str(row.number)
            for row in recorded
        )  # fmt: skip
        lines.append(Text(f"{len(recorded)} {verb} taken from the record, not trained: {which}."))
    failures: dict[str, list[int]] = {}
    for row in result.trials:
        if row.outcome is not None and row.has_failed:
            failures.setdefault(row.outcome.detail, []).append(row.number)
    for why, rows in failures.items():
        which = f"Trial {rows[0]}" if len(rows) == 1 else f"{len(rows)} trials ({_few(rows)})"
        lines.append(Text(f"{which} failed: {why or 'for no known reason'}.", style="red"))
    return [*lines]


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_TRIALS]))
    return f"{shown}, …" if len(numbers) > _MOST_TRIALS else shown
