"""Commands that only look: symbols, list, show. Each returns what --json prints."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.console import Console

from model.engine.report import METRICS, SOME_METRICS
from model.spec.architecture import Architecture
from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf, Symbol, limits_of
from tuner.commands.output import consoles, home_of, print_json
from tuner.errors import TunerError
from tuner.formatting import metric_text, number, number_in, short_hash, short_run, shown
from tuner.space.parameter import SIZES, symbol
from tuner.terminal.tables import table
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.tracking.tags import Tag

# What follows from other entries would only widen a table.
_FOLLOWING = ("cycle_steps", "d_ff", "epochs", "total_steps")


def print_symbols(console: Console) -> dict[str, Any]:
    """The symbol table, and the entries of `model:`."""
    rows = SYMBOL_TABLE.values()
    console.print(
        table(
            "The symbol table",
            ["symbol", "name", "default", "range", "meaning", "formula", "used with"],
            [
                [
                    row.symbol, row.name, default_of(row), row.range, row.meaning, row.formula,
                    "; ".join(f"{k} {', '.join(v)}" for k, v in row.used_when.items()),
                ]
                for row in rows
            ],
        )
    )  # fmt: skip
    for row in rows:
        if row.choice_meanings:
            console.print()
            console.print(table(row.name, ["choice", "what it is"], row.choice_meanings.items()))
    console.print(
        "\nA space gives exactly one of T_total, N_epoch and budget.tokens; the others follow. "
        "With schedule cosine the rate rises to α_max in T_warmup updates and falls to α_min at "
        "T_cycle; with constant it is α after the warm-up; 'tuner validate --plot' draws it.",
        highlight=False,
    )
    entries = {name: Architecture.model_fields[name] for name in SIZES}
    console.print()
    console.print(
        table(
            "Entries of model:",
            ["name", "default", "range", "meaning"],
            [[n, shown(e.default), range_of(e), e.description] for n, e in entries.items()],
        )
    )
    model = {
        name: {"default": entry.default, "range": range_of(entry), "meaning": entry.description}
        for name, entry in entries.items()
    }
    return {"model": model} | {
        row.name: {
            "symbol": row.symbol,
            "spellings": list(row.spellings),
            "default": default_of(row),
            "range": row.range,
            "choices": {choice: row.choice_meanings.get(choice, "") for choice in row.choices},
            "meaning": row.meaning,
            "formula": row.formula,
            "used_when": {k: list(v) for k, v in row.used_when.items()},
        }
        for row in rows
    }


def print_searches(console: Console, record: Record) -> dict[str, Any]:
    """Past searches, newest first."""
    searches = record.searches()
    if not searches:
        console.print(
            f"No search is recorded in {record.uri} yet; run 'tuner search'.", soft_wrap=True
        )
    else:
        console.print(
            table(
                None,
                ["search", "started", "status", "trials", "best", "defaults", "tokens", "seconds"],
                [_search_row(search) for search in searches],
            )
        )
    return {
        "searches": [
            {"name": s.name, "run": s.run_id, "status": s.status, "started": s.started, **s.metrics}
            for s in searches
        ]
    }


def _search_row(search: SearchRecord) -> list[str]:
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


def print_search(console: Console, record: Record, search: SearchRecord) -> dict[str, Any]:
    """The trials of one search, best first, with the hyperparameters in which they differ.

    Those that confirm others come last, in the order of the trials that they confirm.
    """
    trials = record.trials(search)
    searched = [t for t in trials if t.confirms is None]
    names = [n for t in trials[:1] for n in t.parameters]
    varied = [n for n in names if len({t.parameters.get(n) for t in searched}) > 1]
    varied = [n for n in varied if n not in _FOLLOWING and not _copies(n, trials)]
    varied = [n for n in varied if any(is_used(n, t.parameters) for t in searched)]
    ranked = sorted(searched, key=lambda t: (t.status != "finished", t.rank(search.metric)))
    again = [t for t in trials if t.confirms is not None]
    ranked += sorted(again, key=lambda t: (cast(int, t.confirms), t.number))
    console.print(
        table(
            f"{search.name} ({search.status}), run {search.run_id}",
            ["trial", search.metric, "outcome", "run", *map(symbol, varied)],
            [
                [
                    t.number,
                    _loss(t, search.metric),
                    _status(t),
                    short_run(t.run_id),
                    *(number_in(t.parameters.get(name, "")) for name in varied),
                ]
                for t in ranked
            ],
            console.width,
        )
    )
    start = search.tags.get(Tag.INIT_FROM)
    if start:
        console.print(f"All trials started from {start}.", highlight=False)
    return {
        "search": search.name,
        "init_from": start,
        "status": search.status,
        "best_run": search.best_run,
        "trials": [
            {
                "trial": t.number,
                "run": t.run_id,
                "status": t.status,
                "parent": t.parent,
                "confirms": t.confirms,
                "metrics": {k: v for k, v in t.metrics.items() if v == v},  # noqa: PLR0124 - NaN
                "parameters": t.parameters,
            }
            for t in ranked
        ],
    }


def _status(trial: TrialRecord) -> str:
    """How a trial ended, and what it has to do with another one."""
    if trial.confirms is not None:
        return f"{trial.status}, confirms {trial.confirms}"
    return trial.status if trial.parent is None else f"{trial.status}, went on from {trial.parent}"


def is_used(name: str, parameters: Mapping[str, str]) -> bool:
    """Whether a hyperparameter has an effect beside the others of a trial; sizes always have."""
    if name.startswith("prune_"):
        return float(parameters.get("target_sparsity", 0)) > 0
    used_when = SYMBOL_TABLE[name].used_when if name in SYMBOL_TABLE else {}
    return all(parameters.get(other) in values for other, values in used_when.items())


def _copies(name: str, trials: list[TrialRecord]) -> bool:
    """Whether a row was the same as the one that it follows, in every trial."""
    default = SYMBOL_TABLE[name].default if name in SYMBOL_TABLE else None
    if not isinstance(default, FractionOf) or default.share != 1:
        return False
    return all(t.parameters.get(name) == t.parameters.get(default.name) for t in trials)


def _loss(trial: TrialRecord, metric: str) -> str:
    """As a cell of a table, empty before the first report."""
    loss = trial.loss(metric)
    return metric_text(loss) if math.isfinite(loss) or metric in trial.metrics else ""


def print_trial(console: Console, record: Record, trial: TrialRecord) -> dict[str, Any]:
    """One trial in full: parameters, environment, reports."""
    reports = record.reports(trial)
    spec = record.spec(trial)
    start = record.search(trial.search).tags.get(Tag.INIT_FROM)
    console.print(
        f"[bold]trial {trial.number} of {trial.search}[/bold]  {trial.status}, run {trial.run_id}, "
        f"spec {short_hash(spec.hash)}",
        highlight=False,
    )
    if start:
        console.print(f"started from {start}", highlight=False)
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
        "spec_hash": spec.hash,
        "spec": spec.model_dump(mode="json"),
        "environment": trial.environment,
        "reports": {
            str(step): {k: v for k, v in m.items() if v == v}  # noqa: PLR0124 - NaN
            for step, m in reports.items()
        },
    }


def range_of(entry: FieldInfo) -> str:
    """What an entry of `model:` may be: `[1, 1024]`, `pre | post`, `true | false`."""
    if entry.annotation is bool:
        return "true | false"
    if get_origin(entry.annotation) is Literal:
        return " | ".join(get_args(entry.annotation))
    limits = limits_of(entry)
    left = f"({limits['gt']:g}" if "gt" in limits else f"[{limits['ge']}"
    return f"{left}, {limits['le']:g}]" if "le" in limits else f"{left}, ∞)"


def default_of(row: Symbol) -> str:
    """A row's default as text: a number, `0.1·α_max`, or what the budget gives."""
    if row.default is None:
        return "from the budget"
    if isinstance(row.default, FractionOf):
        share = "" if row.default.share == 1 else f"{row.default.share:g}·"
        return f"{share}{SYMBOL_TABLE[row.default.name].symbol}"
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


def symbols(options: argparse.Namespace) -> int:
    """Print the symbol table."""
    results, _ = consoles(options)
    print_json(options, print_symbols(results))
    return 0


def searches(options: argparse.Namespace) -> int:
    """List past searches."""
    from tuner.tracking.record import Record

    results, _ = consoles(options)
    print_json(options, print_searches(results, Record(home_of(options).tracking_uri)))
    return 0


def show(options: argparse.Namespace) -> int:
    """Show the trials of a search, or one in full."""
    from tuner.commands.group import print_comparison
    from tuner.tracking.record import Record

    if options.run and options.by:
        raise TunerError("give a run id or --by, not both")
    results, _ = consoles(options)
    record = Record(home_of(options).tracking_uri)
    if options.by:
        shown = print_comparison(results, record, record.search(options.search), options.by)
    elif options.run:
        shown = print_trial(results, record, record.trial(options.run))
    else:
        shown = print_search(results, record, record.search(options.search))
    print_json(options, shown)
    return 0
