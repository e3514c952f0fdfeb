"""`tuner list` and `tuner show`: past searches, the trials of a search, one trial in full."""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from model.engine.report import METRICS, SOME_METRICS
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from tuner.commands.output import consoles, print_data, print_json, recorded_home
from tuner.conductor.outcome import OutcomeKind
from tuner.errors import RecordError, TunerError
from tuner.formatting import (
    listed,
    metric_text,
    number,
    number_in,
    number_of,
    short_hash,
    short_run,
)
from tuner.home import Home
from tuner.journal.journal import JOURNAL_FILE, short_digest
from tuner.lease.folder import is_running
from tuner.space.parameter import symbol
from tuner.space.settings import Budget, target_text
from tuner.terminal.console import PlainConsole
from tuner.terminal.groups import print_groups
from tuner.terminal.tables import table
from tuner.tracking.metrics import with_counts
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord, drawn
from tuner.tracking.tags import Tag
from tuner.trained.table_trials import journaled, trials_of

# Derived from other parameters: in the table they would repeat them.
_DERIVED = ("cycle_steps", "d_ff", "epochs", "total_steps")


def run_list(options: argparse.Namespace) -> int:
    """List past searches."""
    results, _ = consoles(options)
    home = recorded_home(options)
    print_json(options, print_searches(results, Record(home.tracking_uri), home))
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Show the trials of a search, or one trial in full."""
    if options.run and options.by:
        raise TunerError("give a run id or --by, not both")
    if options.csv and options.json:
        raise TunerError("give --csv or --json, not both")
    results = PlainConsole(quiet=True) if options.csv else consoles(options)[0]
    home = recorded_home(options)
    record = Record(home.tracking_uri)
    if options.by:
        search = current(record.search(options.search), home)
        known, is_recorded = journaled(home, search)
        trials = trials_of(record, search, known if is_recorded else None)
        value = print_groups(results, trials, search, options.by)
        rows = value["values"]
    elif options.run:
        value = print_trial(results, record, record.trial(options.run))
        rows = [{"step": step, **report} for step, report in value["reports"].items()]
    else:
        search = current(record.search(options.search), home)
        known, is_recorded = journaled(home, search)
        trials = trials_of(record, search, known if is_recorded else None)
        names, budget = (known.space.searched_names, known.space.budget) if known else (None, None)
        value = print_search(results, trials, search, names, budget)
        if known and known.space.proxy:
            results.print(known.space.proxy_text(known.facts.vocab_size), highlight=False)
        rows = [_flat(trial) for trial in value["trials"]]
    if options.csv:
        _print_csv(rows)
    print_json(options, value)
    return 0


def _flat(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial of --json without inner mappings."""
    plain = {k: v for k, v in trial.items() if k not in {"metrics", "parameters"}}
    return {**plain, **trial["metrics"], **trial["parameters"]}


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print_data(text.getvalue())


# tuner list --------------------------------------------------------------------------------------


def print_searches(console: Console, record: Record, home: Home) -> dict[str, Any]:
    """Print past searches, newest first; return the object of --json."""
    recorded = record.searches()
    searches = [current(search, home) for search in recorded]
    if not searches:
        console.print(
            f"No search is recorded in {record.uri} yet; run 'tuner search'.", soft_wrap=True
        )
    else:
        console.print(
            table(
                None,
                ["search", "started", "status", "trials", "best", "defaults", "tokens", "seconds"],
                [_search_cells(search) for search in searches],
                console.width,
                ["seconds", "tokens", "started", "defaults", "trials", "status"],
            )
        )
    dead = [s.name for s, before in zip(searches, recorded, strict=True) if s != before]
    if dead:
        console.print(
            f"The process that ran {listed(dead, 'and')} was killed; 'tuner search --resume "
            f"{dead[0]}' goes on.",
            highlight=False,
            soft_wrap=True,
        )
    return {
        "searches": [
            {
                "name": s.name,
                "run": s.run_id,
                "status": s.status,
                "started": s.started,
                **with_counts(s.metrics),
            }
            for s in searches
        ]
    }


def current(search: SearchRecord, home: Home) -> SearchRecord:
    """Return a search with the status `interrupted` if it is recorded as running, but is not.

    Only a journal in this home says so: others may run searches of a shared tracking store.
    """
    try:
        folder = home.search(search.name)
    except RecordError:  # no name that a search of this home could have
        return search
    if search.status != "running" or not (folder / JOURNAL_FILE).is_file() or is_running(folder):
        return search
    return replace(search, status="interrupted")


def _search_cells(search: SearchRecord) -> list[str]:
    def metric(prefix: str, form: str) -> str:
        values = [v for k, v in search.metrics.items() if k.startswith(prefix)]
        return format(values[0], form) if values else ""

    return [
        search.name,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(search.started)),
        search.status,
        metric("trials", ".0f"),
        metric("best_", ".4f"),
        metric("defaults_", ".4f"),
        metric("tokens_spent", ",.0f"),
        metric("wall_seconds", ".0f"),
    ]


# tuner show --------------------------------------------------------------------------------------


def _progress(trial: TrialRecord) -> tuple[bool, int]:
    """Return a key that puts finished trials first, then the stopped ones trained furthest.

    Losses after other numbers of tokens are not compared.
    """
    outcome = trial.outcome
    if outcome is None:
        return True, 0
    reports = int(outcome.detail) if outcome.kind is OutcomeKind.STOPPED else 0
    return outcome.kind is not OutcomeKind.FINISHED, -reports


def print_search(
    console: Console,
    trials: Sequence[TrialRecord],
    search: SearchRecord,
    names: Sequence[str] | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Print the trials of a search with their searched hyperparameters.

    Finished trials come first, the best one on top, then the others, the furthest trained on top.

    Shorter budgets follow, from the longest, and trials of the confirmation come last, ordered by
    the trials that they confirm.

    Args:
        console: output.
        trials: its trials by number.
        search: record of the search.
        names: searched parameters; None for those in which the trials differ.
        budget: budgets of the trials, if they are known.

    Returns:
        The object of --json.
    """
    searched = drawn(trials)
    names = _varied(trials, searched) if names is None else names
    ranked = sorted(searched, key=lambda t: (*_progress(t), t.rank(search.metric)))
    confirming = [t for t in trials if t.confirms is not None]
    branches = [t for t in trials if t.confirms is None and t not in searched]
    ranked += sorted(
        branches, key=lambda t: (*_progress(t), -t.budget_tokens, t.rank(search.metric))
    )
    ranked += sorted(confirming, key=lambda t: (cast(int, t.confirms), t.number))
    console.print(
        table(
            f"{search.name} ({search.status}), run {search.run_id}",
            ["trial", search.metric, "outcome", *map(symbol, names), "run"],
            [
                [
                    t.number,
                    _loss(t, search.metric),
                    _status(t, t in branches),
                    *(number_in(t.parameters.get(name, "")) for name in names),
                    short_run(t.run_id),
                ]
                for t in ranked
            ],
            console.width,
            ["run", *map(symbol, reversed(names[2:])), "outcome"],
        )
    )
    best = _best_of_budgets([*searched, *branches], search.metric, budget)
    if best:
        values = [f"{_loss(t, search.metric)} after {n:,} tokens" for n, t in best.items()]
        text = f"Best {search.metric} of each budget: {listed(values, 'and')}."
        console.print(text, highlight=False, soft_wrap=True)
    start, journal = search.tags.get(Tag.INIT_FROM), search.tags.get(Tag.JOURNAL)
    if start:
        console.print(f"All trials started from {start}.", highlight=False)
    if journal:
        console.print(
            f"Journal {short_digest(journal)}: the digest of every decision and report.",
            highlight=False,
        )
    return {
        "search": search.name,
        "journal": journal,
        "init_from": start,
        "status": search.status,
        "best_run": search.best_run,
        "budgets": [
            {"tokens": n, "trial": t.number, "run": t.run_id, search.metric: t.loss(search.metric)}
            for n, t in best.items()
        ],
        "trials": [
            {
                "trial": t.number,
                "run": t.run_id,
                "status": t.status,
                "parent": t.parent,
                "confirms": t.confirms,
                "metrics": _numbers(t.metrics),
                "parameters": t.parameters,
            }
            for t in ranked
        ],
    }


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics for JSON, which has no NaN."""
    return {k: v for k, v in with_counts(metrics).items() if v == v}  # noqa: PLR0124 - NaN


def _best_of_budgets(
    trials: Sequence[TrialRecord], metric: str, budget: Budget | None
) -> dict[int, TrialRecord]:
    """Return the best finished trial of each of several budgets, the shortest first."""
    best: dict[int, TrialRecord] = {}
    if budget is None or budget.tokens is None or not budget.shorter:
        return best
    for tokens, up_to in pairwise((*budget.shorter, budget.tokens, math.inf)):
        fit = [t for t in trials if t.status == "finished" and tokens <= t.budget_tokens < up_to]
        if fit:
            best[int(tokens)] = min(fit, key=lambda t: t.rank(metric))
    return best


def _status(trial: TrialRecord, is_branch: bool = False) -> str:
    """Return how a trial ended, and its relation to another trial."""
    if is_branch:
        return (
            f"{trial.status} after {trial.budget_tokens:,} tokens, cooled down from {trial.parent}"
        )
    if trial.confirms is not None:
        return f"{trial.status}, confirms {trial.confirms}"
    if trial.parent is not None:
        return f"{trial.status}, continued trial {trial.parent}"
    return trial.status


def is_used(name: str, parameters: Mapping[str, str]) -> bool:
    """Return whether a hyperparameter has an effect, given the others; a size always has."""
    if name.startswith("prune_"):
        return number_of(parameters.get("target_sparsity", "0")) > 0
    used_when = SYMBOL_TABLE[name].used_when if name in SYMBOL_TABLE else {}
    return all(parameters.get(other) in values for other, values in used_when.items())


def _varied(trials: Sequence[TrialRecord], searched: Sequence[TrialRecord]) -> list[str]:
    """Return the parameters that differ between trials, without those that follow others."""
    names = [n for t in trials[:1] for n in t.parameters]
    varied = [n for n in names if len({t.parameters.get(n) for t in searched}) > 1]
    varied = [n for n in varied if n not in _DERIVED and not _follows_other(n, searched)]
    return [n for n in varied if any(is_used(n, t.parameters) for t in searched)]


def _follows_other(name: str, trials: Sequence[TrialRecord]) -> bool:
    """Return whether every trial has the default of a parameter, a share of another one."""
    row = SYMBOL_TABLE.get(name)
    if row is None or not isinstance(row.default, FractionOf):
        return False
    share, other = row.default.share, row.default.name
    tolerance = 0.5 if row.kind is int else 1e-9  # whole numbers are rounded
    low = float(row.low or 0)
    return all(
        {name, other} <= t.parameters.keys()
        and math.isclose(
            number_of(t.parameters[name]),
            max(share * number_of(t.parameters[other]), low),
            rel_tol=1e-9,
            abs_tol=tolerance,
        )
        for t in trials
        if t.parameters  # a new run has none yet
    )


def _loss(trial: TrialRecord, metric: str) -> str:
    """Return a cell of a table, empty before the first report."""
    loss = trial.loss(metric)
    return metric_text(loss) if math.isfinite(loss) or metric in trial.metrics else ""


# tuner show RUN ----------------------------------------------------------------------------------


def print_trial(console: Console, record: Record, trial: TrialRecord) -> dict[str, Any]:
    """Print one trial in full: parameters, reports, environment; return the object of --json."""
    reports = record.reports(trial)
    spec = record.spec(trial)
    start = record.search(trial.search).tags.get(Tag.INIT_FROM)
    console.print(
        Text.assemble(
            (f"trial {trial.number} of {trial.search}", "bold"),
            f"  {trial.status}, run {trial.run_id}, spec {short_hash(spec.hash)}",
        )
    )
    if start:
        console.print(f"started from {start}", highlight=False)
    target = spec.architecture.target
    if target is not None:
        console.print(f"proxy of {target_text(spec.architecture)}", highlight=False)
    console.print()
    console.print(
        table(None, ["parameter", "value"], [[symbol(k), v] for k, v in trial.parameters.items()])
    )
    console.print()
    names = [*METRICS, *(n for n in SOME_METRICS if any(n in m for m in reports.values()))]
    console.print(
        table(
            "reports",
            ["step", *names],
            [
                [step, *(number(m.get(n, float("nan"))) for n in names)]
                for step, m in reports.items()
            ],
        )
    )
    console.print()
    environment = {
        **trial.environment,
        "data": short_hash(spec.data_fingerprint),
        "tokenizer": short_hash(spec.tokenizer_fingerprint),
    }
    console.print(", ".join(f"{k} {v}" for k, v in environment.items()), highlight=False)
    return {
        "run": trial.run_id,
        "trial": trial.number,
        "search": trial.search,
        "status": trial.status,
        "init_from": start,
        "target": None if target is None else target.model_dump(mode="json"),
        "spec_hash": spec.hash,
        "spec": spec.model_dump(mode="json"),
        "environment": trial.environment,
        "reports": {str(step): _numbers(m) for step, m in reports.items()},
    }
