"""`tuner compare`: trials side by side, with their differences and curves."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from rich.text import Text

from model.engine.report import METRICS, SOME_METRICS
from tuner.commands.jobs.remote import client_of, operated, width_of
from tuner.commands.output import consoles, print_data, print_json, recorded_home
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.space.parameter import symbol
from tuner.summaries.comparison import TrialComparison
from tuner.summaries.search_comparison import SearchComparison
from tuner.terminal.console import PlainConsole
from tuner.terminal.live import sparkline
from tuner.texts.formatting import listed, number, number_in, short_run
from tuner.tracking.record import Record

_CURVE = 30  # cells of the longest curve
_IDENTIFIERS = ("seed", "starts from", "data", "tokenizer")


def run_compare(options: argparse.Namespace) -> int:
    """Compare trials side by side."""
    if len(options.runs) < 2:
        raise TunerError("give two or more trials; 'tuner show' lists their run ids")
    if (client := client_of(options)) is not None:
        operation = operated(
            options, client, options.runs[0].partition("/")[0], "compare", runs=options.runs,
            json_line=options.json, width=width_of(options),
        )  # fmt: skip
        print_data(client.output(operation.id))
        return 0
    results, _ = consoles(options)
    folders = [Home.of(options.home).search(run) for run in options.runs if "/" not in run]
    if len(folders) == len(options.runs) and all(folder.is_dir() for folder in folders):
        searches = SearchComparison.read(Home.of(options.home), options.runs)
        print_searches(results, searches)
        print_json(options, searches)
        return 0
    home = recorded_home(options)
    comparison = TrialComparison.read(Record(home.tracking_uri), home, options.runs)
    print_comparison(results, comparison)
    print_json(options, comparison)
    return 0


def print_searches(console: PlainConsole, comparison: SearchComparison) -> None:
    """Print searches side by side."""
    names = [search.name for search in comparison.searches]
    rows = []
    for search in comparison.searches:
        winner = search.winner
        mean = "" if winner is None else f"{winner.mean:.4f}"
        seeds = "" if winner is None else f"{winner.low:.4f} … {winner.high:.4f}, {winner.count}"
        rows.append(
            [search.name, str(search.ended), f"{search.tokens:,}", _shown(search.best), mean, seeds]
        )
    heads = ["search", "trials", "tokens", comparison.metric, "confirmed", "interval, seeds"]
    console.table(None, heads, rows)
    console.print()
    if comparison.differing:
        settings = [[name, *values] for name, values in comparison.differing.items()]
        console.table("differences", ["", *names], settings)
    else:
        console.print("The searches have the same space.")
    console.print()
    console.print(comparison.verdict)


def print_comparison(console: PlainConsole, comparison: TrialComparison) -> None:
    """Print trials side by side."""
    metric, trials = comparison.metric, comparison.trials
    heads = [f"{trial.search}/{trial.number}" for trial in trials]
    console.table(
        None,
        ["trial", "run", "outcome", metric],
        [
            [head, short_run(t.run_id), t.status, _shown(t.metrics.get(metric))]
            for head, t in zip(heads, trials, strict=True)
        ],
    )
    console.print()
    if comparison.differing:
        rows = [
            [symbol(name), *(values if name in _IDENTIFIERS else map(number_in, values))]
            for name, values in comparison.differing.items()
        ]
        console.table("differences", ["", *heads], rows)
    else:
        console.print("The trials have the same hyperparameters, architecture, data and seed.")
    if comparison.incomparable:
        console.print()
        reasons = listed(comparison.incomparable, "and")
        console.print(f"The losses cannot be compared: {reasons} differ.", style="yellow")
    console.print()
    _print_curves(console, metric, heads, comparison)
    console.print()
    ends = [list(reports.values())[-1] if reports else {} for reports in comparison.reports]
    console.table(
        "at the last report",
        ["", *heads],
        [
            [name, *(_shown(end.get(name)) for end in ends)]
            for name in (*METRICS, *SOME_METRICS)
            if any(name in end for end in ends)
        ],
    )


def _print_curves(
    console: PlainConsole, metric: str, heads: Sequence[str], comparison: TrialComparison
) -> None:
    """Print a table of the values at equal tokens, then the curves on one scale."""
    curves = comparison.curves
    is_pair = len(heads) == 2
    rows = []
    for tokens in sorted({tokens for curve in curves for tokens in curve}):
        values = [curve.get(tokens) for curve in curves]
        first, last = values[0], values[-1]
        change = f"{last - first:+.4f}" if first is not None and last is not None else ""
        rows.append([f"{tokens:,}", *map(_shown, values), *([change] if is_pair else [])])
    console.table(metric, ["tokens", *heads, *(["difference"] if is_pair else [])], rows)
    console.print()
    scale = [value for curve in curves for value in curve.values()]
    width = max(map(len, heads))
    for name, curve in zip(heads, curves, strict=True):
        # its length is its number of reports, relative to the longest curve
        cells = max(1, round(_CURVE * len(curve) / max(1, *map(len, curves))))
        line = sparkline(list(curve.values()), cells, scale)
        console.print(Text.assemble((f"{name:<{width}}  ", "dim"), (line, "green")))


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    if math.isfinite(value) and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1000 else number(value)
