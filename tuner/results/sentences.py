"""Summary of a search in sentences, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from tuner.conductor.confirmation import summary
from tuner.conductor.left import FEWEST, Left
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import verdict_sentences
from tuner.results.comparison import (
    compare_with_defaults,
    cut_leader,
    has_best_value,
    only_defaults_finished,
)
from tuner.schedulers.registry import no_draws
from tuner.space.parameter import symbol
from tuner.texts.formatting import clock, counted, listed, metric_text

if TYPE_CHECKING:
    from tuner.results.result import SearchResult

MOST_TRIALS = 8  # in a list of trials


def summary_texts(result: SearchResult) -> list[Text]:
    """Return the gain, the confirmation, what is left, the cost and the endings, a line each."""
    # several objectives have no single best trial, and no confirmation
    gain = _gain(result) if len(result.space.objectives) == 1 else []
    found = [*gain, *_budgets(result), *_confirmation(result), *_left(result)]
    learned = [Text(f"{text[0].upper()}{text[1:]}.") for text in result.learned]
    return [*found, *learned, *_cost(result), *_endings(result)]


def summary_sentences(result: SearchResult) -> list[str]:
    """Return the lines of `summary_texts` without colours."""
    return [text.plain for text in summary_texts(result)]


def _gain(result: SearchResult) -> list[Text]:
    """Compare the best trial with trial 0, after equal training."""
    best, defaults, metric = result.best, result.defaults, result.metric
    value = best.objective(metric)
    moved = [symbol(p.name) for p in result.space.moved()]
    note = f" (moved into your ranges: {', '.join(moved)})" if moved else ""
    if not best.has_finished:
        line = Text(
            f"No trial was trained to the end. The {result.space.objective.lowest} {metric} is "
            f"{value:.4f}, of trial {best.number} at report {best.place} of {best.num_places}"
        )
    elif best is defaults:
        if only_defaults_finished(result):
            start = f"Only trial 0, the defaults{note}, was trained to the end"
        elif len(result.trials) == 1:  # the winner of a transfer, for one
            start = "Trial 0 was trained to the end"
        else:
            start = f"No trial beat trial 0, the defaults{note}"
        line = Text(f"{start}: {metric} {value:.4f}")
    else:
        start = "Best " if has_best_value(result) else f"Trial {best.number} has "
        line = Text.assemble(start, (f"{metric} {value:.4f}", "bold green"))
    line.append(_against(result, note)).append(".")
    return [line, *_cut(result), *_answers(best)]


def _against(result: SearchResult, note: str) -> str:
    """Return the end of the sentence on the best trial: its comparison with the defaults."""
    defaults, sign = result.defaults, result.space.objective.sign
    if defaults is None or result.best is defaults:
        return ""
    comparison = compare_with_defaults(result)
    if comparison is None:
        ended = defaults.has_diverged or defaults.has_failed
        return f"; the defaults{note} {defaults.outcome}" if ended else ""
    value, base = comparison.value, comparison.defaults
    is_lower = (comparison.change >= 0) == (sign > 0)
    change = f"{abs(comparison.change):.1f} % {'lower' if is_lower else 'higher'}"
    if not comparison.is_final:
        at = f"at report {comparison.place}"
        if defaults.is_stopped and defaults.place == comparison.place:
            at += ", where the defaults were stopped,"
        return f"; {at} it had {value:.4f} against {base:.4f} of the defaults{note}: {change}"
    text = f" against {base:.4f} of the defaults{note}: {change}"
    if result.metric == "val_loss":
        text += (
            f" (perplexity {math.exp(min(value, 700)):.1f} against {math.exp(min(base, 700)):.1f})"
        )
    return text


def _cut(result: SearchResult) -> list[Text]:
    """Name a trial that may be better than the best one, but was not trained to the end."""
    trial = cut_leader(result)
    if trial is None:
        return []
    value = result.best.value_at(result.metric, trial.place)
    assert value is not None
    return [
        Text(
            f"Trial {trial.number} may be better: it had {trial.objective(result.metric):.4f} at "
            f"report {trial.place} of {trial.num_places}, where trial {result.best.number} had "
            f"{value:.4f}, but the search ended before it was trained to the end."
        )
    ]


def _answers(best: Trial) -> list[Text]:
    """Return how much of translations or answers is right; nothing for other models."""
    last = best.reports[-1]
    if last.token_accuracy is None:
        return []
    score = "" if last.bleu is None else f"; BLEU {last.bleu:.1f} with greedy decoding"
    whose = "the target's"
    if best.spec.data.examples:
        whose = "the answers'" if best.spec.data.loss_on == "answers" else "the examples'"
    if last.exact_match is not None:
        score = f", and {100 * last.exact_match:.1f} % of the answers exactly"
    return [Text(f"It predicts {100 * last.token_accuracy:.1f} % of {whose} tokens right{score}.")]


def _budgets(result: SearchResult) -> list[Text]:
    """Name the best trial of each budget, and say what the shorter ones cost."""
    best, metric = result.best_by_budget, result.metric
    if not best:
        return []
    values = [
        f"{trial.objective(metric):.4f} after {tokens:,} tokens (trial {trial.number})"
        for tokens, trial in best.items()
    ]
    count = len(result.branches)
    spent = sum(trial.tokens_trained for trial in result.branches)
    alone = sum(trial.tokens for trial in result.branches)
    return [
        Text(f"Best {metric} of each budget: {listed(values, 'and')}."),
        Text(
            f"The shorter budgets took {spent:,} tokens for {counted(count, 'trial')}, cooled down "
            f"from states of longer ones, instead of {alone:,}."
        ),
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
    verdict = verdict_sentences(result.verdict, result.metric) if result.verdict else ()
    lines = summary(result.confirmation, result.metric, selected, verdict)
    return [Text(line) for line in lines]


def _left(result: SearchResult) -> list[Text]:
    """Say what more trials could still find, or why that is not known."""
    left = result.left
    if left is None:
        if result.halted or no_draws(result.space) or len(result.trials) < 2:
            return []
        return [
            Text(
                f"What more trials could find is not known: that needs {FEWEST} trials of the "
                f"sampler with a loss, and one that has finished."
            )
        ]
    spread = result.confirmation.spread if result.confirmation else None
    gain = abs(left.best - left.low)
    text = left_sentence(left, result.metric)
    if spread is not None and gain <= spread:
        text += f" Seeds differ by more, {spread:.4f}: more of the same will not help."
    elif not result.halted and result.limit is None:
        more = result.space.search.trials + left.more
        text = f"{text.removesuffix('.')}; tuner search --resume {result.name} --trials {more}."
    return [Text(text)]


def left_sentence(left: Left, metric: str) -> str:
    """Return a sentence on the best value that more trials of a search could find."""
    basis = f"{left.trials} finished trials"
    if left.place < left.places:
        basis = f"{left.trials} trials at report {left.place} of {left.places}"
    return (
        f"{left.more} more trials would end with a best {metric} of {metric_text(left.low)} to "
        f"{metric_text(left.high)} (90 % interval, by {basis}): at most "
        f"{100 * left.share:.2g} % is left to gain."
    )


def _cost(result: SearchResult) -> list[Text]:
    """Return the training tokens, the time and the number of diverged trials."""
    spent, full = result.tokens_spent, result.tokens_full
    diverged = sum(trial.has_diverged for trial in result.trials)
    sessions = f" of {result.sessions} sessions" if result.sessions > 1 else ""
    trained = f"Trained {spent:,} tokens in {clock(result.wall_seconds)}{sessions}"
    if result.halted is None and full:
        share = 100 * (1 - spent / full)
        trained += f"; early stopping saved {share:.0f} % of {full:,} tokens"
    if result.confirmation_tokens:
        trained += f"; the confirmation took another {result.confirmation_tokens:,} tokens"
    lines = [Text(f"{trained}." + (f" {counted(diverged, 'trial')} diverged." if diverged else ""))]
    if result.training_share:  # otherwise the last session had nothing to train
        period = "the time" if result.sessions == 1 else "the last session"
        percent = f"{100 * result.training_share:.0f} %"
        lines.append(Text(f"The workers spent {percent} of {period} inside training."))
    return lines


def _too_large(trials: Sequence[Trial]) -> str:
    """Say which trials did not fit into memory."""
    number, reason = trials[0].number, trials[0].outcome.detail if trials[0].outcome else ""
    if len(trials) == 1:
        return f"Trial {number} does not fit into memory and was not trained: {reason}."
    return (
        f"{len(trials)} trials do not fit into memory and were not trained; of trial {number}: "
        f"{reason}."
    )


def _endings(result: SearchResult) -> list[Text]:
    """Explain why the search ended early, and which trials were reused or failed."""
    lines = []
    settings, reason = result.space.search, result.halted or result.limit
    limit = {
        "max_tokens": f"--max-tokens: {settings.max_tokens or 0:,} tokens were trained",
        "max_seconds": f"--max-time: {clock(settings.max_seconds or 0)} are over",
        "stopped": "'tuner stop'",
        "patience": f"--patience: {counted(settings.patience or 0, 'trial')} ended without a "
        "better one",
        "stop_when_left_below": "search.stop_when_left_below: less than "
        f"{100 * (settings.stop_when_left_below or 0):.3g} % was left to gain",
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
    if large := [trial for trial in result.trials if trial.is_infeasible]:
        lines.append(Text(_too_large(large), style="red"))
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


def resume_commands(result: SearchResult) -> list[tuple[str, str]]:
    """Return the command that resumes a search that ended early, and its meaning; else nothing."""
    command = f"tuner search --resume {result.name}"
    if result.halted:
        return [(command, "resume the search")]
    if result.limit:
        option = f"--{result.limit.replace('_', '-')} N"
        if result.limit == "stop_when_left_below":
            return [(f"{command} --set search.{result.limit}=null", "resume without this limit")]
        return [(f"{command} {option}", "resume with a higher limit")]
    return []


def _few(numbers: Sequence[int]) -> str:
    first = ", ".join(map(str, numbers[:MOST_TRIALS]))
    return f"{first}, …" if len(numbers) > MOST_TRIALS else first
