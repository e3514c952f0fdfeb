"""`tuner list` and `tuner show`: past searches, the trials of a search, one trial in full."""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from model.engine.report import METRICS, SOME_METRICS
from tuner.commands.jobs.remote import client_of, operated, trial_of, width_of
from tuner.commands.output import (
    as_json,
    check_run,
    consoles,
    home_option,
    print_data,
    print_json,
    recorded_home,
)
from tuner.conductor.verdict import verdict_sentences
from tuner.errors import TunerError
from tuner.journal.journal import short_digest
from tuner.results.sentences import left_sentence
from tuner.space.parameter import symbol
from tuner.space.settings import target_text
from tuner.summaries.configuration import TrialConfiguration
from tuner.summaries.groups import ParameterGroups
from tuner.summaries.other_trainers import TAKE_AWAY
from tuner.summaries.search_table import SearchTable
from tuner.summaries.searches import RecordedSearches
from tuner.summaries.trial import TrialSummary
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import (
    listed,
    metric_text,
    number,
    number_in,
    number_of,
    short_hash,
    short_run,
    shown,
)
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord
from tuner.trained.recorded_trials import RecordedTrials


def run_list(options: argparse.Namespace) -> int:
    """List past searches."""
    results, _ = consoles(options)
    home = recorded_home(options)
    recorded = RecordedSearches.of(Record(home.tracking_uri), home)
    print_searches(results, recorded, home.tracking_uri, home_option(options))
    print_json(options, recorded)
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Show the trials of a search, or one trial in full."""
    if options.run and options.by:
        raise TunerError("give a run id or --by, not both")
    if options.csv and options.json:
        raise TunerError("give --csv or --json, not both")
    if options.take_away and (options.by or options.csv):
        raise TunerError(f"--{options.take_away} prints one trial; leave --by and --csv out")
    if (client := client_of(options)) is not None:
        search, trial = trial_of(options.run, options.search)
        operation = operated(
            options, client, search, "show", trial=trial, by=options.by, all=options.all,
            csv=options.csv, take_away=options.take_away, json_line=options.json,
            width=width_of(options),
        )  # fmt: skip
        print_data(client.output(operation.id))
        return 0
    results = PlainConsole(quiet=True) if options.csv else consoles(options)[0]
    home = recorded_home(options)
    record = Record(home.tracking_uri)
    if options.take_away:
        return _take_away(options, RecordedTrials(record, home))
    value: TrialSummary | SearchTable | ParameterGroups
    if options.run:
        value = TrialSummary.read(record, home, options.run)
        print_trial(results, value, everything=options.all)
        rows = [{"step": step, **report} for step, report in value.as_json["reports"].items()]
    else:
        table = SearchTable.read(record, home, options.search)
        value, rows = table, [_flat(trial) for trial in table.as_json["trials"]]
        if options.by:
            trials = sorted(table.trials, key=lambda trial: trial.number)
            value = ParameterGroups.of(trials, table.search, options.by)
            print_groups(results, value, table.search.status)
            rows = as_json(value.values)
        else:
            print_search(results, table)
    if options.csv:
        _print_csv(rows)
    print_json(options, value)
    return 0


def _take_away(options: argparse.Namespace, trials: RecordedTrials) -> int:
    """Print the configuration of a trial for a space, or for another trainer."""
    check_run(options)
    trial = TrialConfiguration(trials.find(options.run, options.search))
    text = TAKE_AWAY[options.take_away](trial)
    if options.json:
        record = trial.trial.record
        print_json(options, {"run": record.run_id, "trial": record.number,
                             "search": record.search, options.take_away: text})  # fmt: skip
    else:
        print_data(text)
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


def print_searches(
    console: PlainConsole, recorded: RecordedSearches, store: str, home: str = ""
) -> None:
    """Print past searches, the newest first; `home` is the option of the hints."""
    if not recorded.searches:
        console.write_line(f"No search is recorded in {store} yet; run 'tuner search'.")
        return
    console.table(
        None,
        ["search", "started", "status", "trials", "best", "defaults", "tokens", "seconds"],
        map(_search_cells, recorded.searches),
        ["seconds", "tokens", "started", "defaults", "trials", "status"],
    )
    if recorded.killed:
        console.write_line(
            f"The process that ran {listed(recorded.killed, 'and')} was killed; 'tuner search "
            f"--resume {recorded.killed[0]}{home}' goes on."
        )


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


def print_search(console: PlainConsole, table: SearchTable) -> None:
    """Print the trials of a search with their searched hyperparameters."""
    search, metric, names = table.search, table.search.metric, table.names
    console.table(
        f"{search.name} ({search.status}), run {search.run_id}",
        ["trial", metric, "outcome", *map(symbol, names), "run"],
        [
            [
                t.number,
                _loss(t, metric),
                table.outcome(t),
                *(number_in(t.parameters.get(name, "")) for name in names),
                short_run(t.run_id),
            ]
            for t in table.trials
        ],
        ["run", *map(symbol, reversed(names[2:])), "outcome"],
    )
    if table.budgets:
        values = [f"{_loss(t, metric)} after {n:,} tokens" for n, t in table.budgets.items()]
        console.write_line(f"Best {metric} of each budget: {listed(values, 'and')}.")
    if table.left:
        console.write_line(left_sentence(table.left, metric))
    if table.verdict is not None:
        for line in verdict_sentences(table.verdict, metric):
            console.write_line(line)
    if table.init_from:
        console.print(f"All trials started from {table.init_from}.")
    if table.learned:
        console.print(f"{table.learned[0].upper()}{table.learned[1:]}.")
    if table.journal:
        digest = short_digest(table.journal)
        console.print(f"Journal {digest}: the digest of every decision and report.")
    if table.proxy:
        console.print(table.proxy)


def _loss(trial: TrialRecord, metric: str) -> str:
    """Return a cell of a table, empty before the first report."""
    loss = trial.loss(metric)
    return metric_text(loss) if math.isfinite(loss) or metric in trial.metrics else ""


def print_groups(console: PlainConsole, groups: ParameterGroups, status: str) -> None:
    """Print, for each value of a parameter, its number of trials and the objective they reached."""

    def loss(value: float | None, finished: int) -> str:
        if groups.only_finished and not finished:
            return ""
        return "∞" if value is None else f"{value:.4f}"

    metric, name = groups.metric, symbol(groups.by)
    console.table(
        f"{groups.search} ({status}) by {name}",
        [name, "trials", "finished", f"best {metric}", f"median {metric}", "trial", "run"],
        [
            [
                number_in(g.value), g.trials, g.finished, loss(g.best, g.finished),
                loss(g.median, g.finished), g.best_trial, short_run(g.best_run or ""),
            ]
            for g in groups.values
        ],
    )  # fmt: skip
    notes = []
    if groups.only_finished:
        notes.append("Best and median are of finished trials; the others had smaller budgets.")
    if groups.without_defaults:
        notes.append("Trial 0 (the defaults) is excluded: it was not drawn.")
    if notes:
        console.write_line(" ".join(notes), "dim")


# tuner show RUN ----------------------------------------------------------------------------------


def print_trial(console: PlainConsole, summary: TrialSummary, *, everything: bool = False) -> None:
    """Print one trial in full: parameters, reports, environment.

    Args:
        console: output.
        summary: the trial.
        everything: print all parameters, not only the searched ones.
    """
    trial, architecture, reports = summary.trial, summary.spec.architecture, summary.reports
    console.print(
        Text.assemble(
            (f"trial {trial.number} of {trial.search}", "bold"),
            f"  {trial.status}, run {trial.run_id}, spec {short_hash(summary.spec.hash)}",
        )
    )
    if summary.init_from:
        console.print(f"started from {summary.init_from}")
    if architecture.target is not None:
        console.print(f"proxy of {target_text(architecture)}")
    console.print()
    searched = summary.used
    others = [name for name in trial.parameters if name not in searched]
    names = [*searched, *others] if everything or not searched else searched
    console.table(
        None,
        ["parameter", "value"],
        [[symbol(name), _exact(trial.parameters[name])] for name in names],
    )
    if len(names) < len(trial.parameters):
        console.print(f"and {len(others)} other parameters; --all shows them", style="dim")
    console.print()
    metrics = [*METRICS, *(n for n in SOME_METRICS if any(n in m for m in reports.values()))]
    console.table(
        "reports",
        ["step", *metrics],
        [[step, *(number(m.get(n, math.nan)) for n in metrics)] for step, m in reports.items()],
    )
    console.print()
    console.print(", ".join(f"{k} {v}" for k, v in summary.environment.items()))


def _exact(text: str) -> str:
    """Return a parameter with 12 digits: 0.0021, which the store has as 0.0021000000000000003."""
    value = number_of(text)
    return shown(value) if "." in text and math.isfinite(value) else text
