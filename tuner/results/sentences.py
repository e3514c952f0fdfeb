"""Summary of a search in sentences, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from tuner.conductor.confirmation import summary
from tuner.conductor.trial import Trial
from tuner.formatting import clock, counted
from tuner.space.parameter import symbol

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

MOST_TRIALS = 8  # in a list of trials


def summary_texts(result: SearchResult) -> list[Text]:
    """Return the gain, the confirmation, the cost and the endings, a line of text each."""
    # several objectives have no single best trial, and no confirmation
    gain = _gain(result) if len(result.space.objectives) == 1 else []
    return [*gain, *_confirmation(result), *_cost(result), *_endings(result)]


def summary_sentences(result: SearchResult) -> list[str]:
    """Return the lines of `summary_texts` without colours."""
    return [text.plain for text in summary_texts(result)]


def _sign(result: SearchResult) -> int:
    return result.space.objective.sign


def _gain(result: SearchResult) -> list[Text]:
    """Compare the best trial with the defaults of the symbol table."""
    best, defaults, sign = result.best, result.trials[0], _sign(result)
    value, base = best.objective(result.metric), defaults.objective(result.metric)
    moved = [symbol(p.name) for p in result.space.moved()]
    note = f" (moved into your ranges: {', '.join(moved)})" if moved else ""
    if best is defaults:
        return [Text(f"No trial beat the defaults of the symbol table{note}: {value:.4f}.")]
    if math.isinf(base):
        return [Text(f"Best {result.metric} {value:.4f}; the defaults{note} {defaults.outcome}.")]
    at = "" if defaults.has_finished else f" at {defaults.tokens:,} tokens"
    values = [
        sign * trial.objective(result.metric) for trial in result.trials if trial.has_finished
    ]
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
    return [line.append("."), *_translation(best)]


def _translation(best: Trial) -> list[Text]:
    """Return the accuracy of an encoder–decoder; nothing for a language model."""
    last = best.reports[-1]
    if last.token_accuracy is None:
        return []
    score = "" if last.bleu is None else f"; BLEU {last.bleu:.1f} with greedy decoding"
    return [
        Text(f"It predicts {100 * last.token_accuracy:.1f} % of the target's tokens right{score}.")
    ]


def _confirmation(result: SearchResult) -> list[Text]:
    """Name the winner with fresh seeds, and whether the first two trials differ significantly."""
    if result.confirmation is None:
        return []
    selected = {
        trial.number: trial.objective(result.metric)
        for trial in result.trials
        if result.confirmation.of(trial.number) is not None
    }
    return [Text(line) for line in summary(result.confirmation, result.metric, selected)]


def _cost(result: SearchResult) -> list[Text]:
    """Return the training tokens, the time and the number of diverged trials."""
    spent, full = result.tokens_spent, result.tokens_full
    diverged = sum(trial.has_diverged for trial in result.trials)
    trained = f"Trained {spent:,} tokens in {clock(result.wall_seconds)}"
    if result.halted is None and full:
        share = 100 * (1 - spent / full)
        trained += f"; early stopping saved {share:.0f} % of {full:,} tokens"
    if result.confirmation_tokens:
        trained += f"; the confirmation took another {result.confirmation_tokens:,} tokens"
    return [
        Text(f"{trained}." + (f" {counted(diverged, 'trial')} diverged." if diverged else "")),
        Text(f"The workers spent {100 * result.training_share:.0f} % of the time inside training."),
    ]


def _endings(result: SearchResult) -> list[Text]:
    """Explain why the search ended early, and which trials were reused or failed."""
    lines = []
    settings, reason = result.space.search, result.halted or result.limit
    limit = {
        "max_tokens": f"--max-tokens: {settings.max_tokens or 0:,} tokens were trained",
        "max_seconds": f"--max-time: {clock(settings.max_seconds or 0)} are over",
        "patience": f"--patience: {counted(settings.patience or 0, 'trial')} ended without a "
        "better one",
    }
    if reason:
        num_ended = sum(trial.outcome is not None for trial in result.trials)
        why = f"Stopped by {limit[reason]}" if reason in limit else reason.capitalize()
        lines.append(Text(f"{why}. {num_ended} of {len(result.trials)} trials had ended."))
    reused = [trial for trial in result.trials if trial.reused]
    if reused:
        verb = "trial was" if len(reused) == 1 else "trials were"
        which = ", ".join(
            f"{trial.number} ({trial.outcome})" if trial.is_duplicate
            else str(trial.number)
            for trial in reused
        )  # fmt: skip
        lines.append(Text(f"{len(reused)} {verb} reused from the record, not trained: {which}."))
    failures: dict[str, list[int]] = {}
    for trial in result.trials:
        if trial.outcome is not None and trial.has_failed:
            failures.setdefault(trial.outcome.detail, []).append(trial.number)
    for why, numbers in failures.items():
        which = (
            f"Trial {numbers[0]}"
            if len(numbers) == 1
            else f"{len(numbers)} trials ({_few(numbers)})"
        )
        lines.append(Text(f"{which} failed: {why or 'for an unknown reason'}.", style="red"))
    return lines


def _few(numbers: Sequence[int]) -> str:
    first = ", ".join(map(str, numbers[:MOST_TRIALS]))
    return f"{first}, …" if len(numbers) > MOST_TRIALS else first
