"""`tuner compare`: trials side by side, with their differences and curves."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from model.engine.report import METRICS, SOME_METRICS
from tuner.commands.output import consoles, print_json, recorded_home
from tuner.commands.show import is_used
from tuner.errors import TunerError
from tuner.formatting import listed, number, number_in, short_hash, short_run
from tuner.space.parameter import symbol
from tuner.terminal.live import sparkline
from tuner.terminal.tables import table
from tuner.tracking.record import Record
from tuner.tracking.records import TrialRecord

_CURVE = 30  # cells of the longest curve
_IDENTIFIERS = ("seed", "starts from", "data", "tokenizer")


def run_compare(options: argparse.Namespace) -> int:
    """Compare trials side by side."""
    if len(options.runs) < 2:
        raise TunerError("give two or more trials; 'tuner show' lists their run ids")
    results, _ = consoles(options)
    record = Record(recorded_home(options).tracking_uri)
    print_json(options, print_comparison(results, record, options.runs))
    return 0


def print_comparison(console: Console, record: Record, names: Sequence[str]) -> dict[str, Any]:
    """Print trials side by side.

    Args:
        console: output.
        record: tracking store.
        names: names of two or more trials: run ids, or `lm-1/13`.

    Returns:
        The object of --json.

    Raises:
        RecordError: if there is no such trial.
        TunerError: if two names mean one trial.
    """
    trials = [record.trial(name) for name in names]
    for index, trial in enumerate(trials):
        if trial.run_id in {other.run_id for other in trials[:index]}:
            raise TunerError(f"{names[index]} names the trial of an earlier argument; remove it")
    metric = record.search(trials[0].search).metric
    heads = [f"{trial.search}/{trial.number}" for trial in trials]
    facts = [_facts(record, trial) for trial in trials]
    differing = {
        name: [fact.get(name, "") for fact in facts]
        for name in dict.fromkeys(name for fact in facts for name in fact)
        if len({fact.get(name) for fact in facts}) > 1
    }
    console.print(
        table(
            None,
            ["trial", "run", "outcome", metric],
            [[head, short_run(t.run_id), t.status, _shown(t.metrics.get(metric))]
             for head, t in zip(heads, trials, strict=True)],
        )
    )  # fmt: skip
    console.print()
    if differing:
        rows = [[symbol(name), *_shown_all(name, values)] for name, values in differing.items()]
        console.print(table("differences", ["", *heads], rows))
    else:
        console.print("The trials have the same hyperparameters, architecture, data and seed.")
    reasons = [name for name in ("data", "tokenizer") if name in differing]
    if reasons:
        console.print()
        console.print(
            f"The losses cannot be compared: {listed(reasons, 'and')} differ.", style="yellow"
        )
    reports = [record.reports(trial) for trial in trials]
    console.print()
    _print_curves(console, metric, heads, reports)
    console.print()
    ends = [list(curve.values())[-1] if curve else {} for curve in reports]
    console.print(
        table(
            "at the last report",
            ["", *heads],
            [
                [name, *(_shown(end.get(name)) for end in ends)]
                for name in (*METRICS, *SOME_METRICS)
                if any(name in end for end in ends)
            ],
        )
    )
    return {
        "metric": metric,
        "trials": [
            {"search": t.search, "trial": t.number, "run": t.run_id, "status": t.status}
            for t in trials
        ],
        "differing": differing,
        "comparable": not reasons,
        "curves": [_points(curve, metric) for curve in reports],
    }


def _facts(record: Record, trial: TrialRecord) -> dict[str, str]:
    """Return what defines a trial, as text: parameters, budget, start, data and environment."""
    spec = record.spec(trial)
    start = short_hash(spec.init_from.sha256) if spec.init_from else "random weights"
    return {
        **{k: v for k, v in trial.parameters.items() if is_used(k, trial.parameters)},
        "budget": f"{spec.budget_tokens} tokens",
        "starts from": start,
        "data": short_hash(spec.data_fingerprint),
        "tokenizer": short_hash(spec.tokenizer_fingerprint),
        **trial.environment,
    }


def _points(curve: Mapping[int, Mapping[str, float]], metric: str) -> dict[str, float]:
    """Return the finite values of a metric by tokens."""
    return {
        f"{metrics['tokens']:.0f}": metrics[metric]
        for metrics in curve.values()
        if all(math.isfinite(metrics.get(name, math.nan)) for name in ("tokens", metric))
    }


def _print_curves(
    console: Console,
    metric: str,
    heads: Sequence[str],
    reports: Sequence[Mapping[int, Mapping[str, float]]],
) -> None:
    """Print a table of the values at equal tokens, then the curves on one scale."""
    curves = [
        {int(tokens): value for tokens, value in _points(curve, metric).items()}
        for curve in reports
    ]
    all_tokens = sorted({tokens for curve in curves for tokens in curve})
    is_pair = len(heads) == 2
    rows = []
    for tokens in all_tokens:
        values = [curve.get(tokens) for curve in curves]
        first, last = values[0], values[-1]
        change = f"{last - first:+.4f}" if first is not None and last is not None else ""
        rows.append([f"{tokens:,}", *map(_shown, values), *([change] if is_pair else [])])
    head = ["tokens", *heads, *(["difference"] if is_pair else [])]
    console.print(table(metric, head, rows))
    console.print()
    scale = [value for curve in curves for value in curve.values()]
    width = max(map(len, heads))
    for name, curve in zip(heads, curves, strict=True):
        # its length is its number of reports, relative to the longest curve
        cells = max(1, round(_CURVE * len(curve) / max(1, *map(len, curves))))
        line = sparkline(list(curve.values()), cells, scale)
        console.print(Text.assemble((f"{name:<{width}}  ", "dim"), (line, "green")))


def _shown_all(name: str, values: Sequence[str]) -> Sequence[str]:
    """Format the values of a row; identifiers that look like numbers stay unchanged."""
    return values if name in _IDENTIFIERS else [number_in(value) for value in values]


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    if math.isfinite(value) and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1000 else number(value)
