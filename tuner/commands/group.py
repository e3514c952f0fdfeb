"""`tuner show --by optimizer`: the trials of a search, grouped by the value of one parameter."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from rich.console import Console

from model.spec.hyperparameters import find_symbol
from tuner.errors import TunerError
from tuner.formatting import did_you_mean, number_in, short_run, shown
from tuner.space.objective import sign_of
from tuner.space.parameter import SIZES, SPELLINGS, symbol
from tuner.terminal.tables import table
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord, TrialRecord


def print_comparison(
    console: Console, record: Record, search: SearchRecord, spelling: str
) -> dict[str, Any]:
    """For each value of a parameter: how many trials had it, and the objective they reached.

    Losses are compared at one budget. If all trials ran to the end, each counts, a diverged one
    with an infinite loss; if some were stopped before, only those that finished do. The first
    trial, the defaults, is no draw, so it counts only for a value that no other trial has.

    Raises:
        TunerError: if no trial of the search has such a parameter.
    """
    row = find_symbol(spelling)
    name = row.name if row else spelling
    # one that was created a moment ago has no parameters yet
    drawn = [trial for trial in record.trials(search) if trial.confirms is None]
    described = [trial for trial in drawn if trial.parameters]
    trials = [trial for trial in described if name in trial.parameters]
    if not described:
        raise TunerError(f"--by: no trial of {search.name} has begun; try again in a moment")
    if not trials:
        way_out = did_you_mean(spelling, (*SPELLINGS, *SIZES)) or "; 'tuner symbols' lists all"
        raise TunerError(f"--by: unknown parameter {shown(spelling)}{way_out}")
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.parameters[name], []).append(trial)
    groups = {value: _draws(members) for value, members in groups.items()}
    counted = [trial for members in groups.values() for trial in members]
    is_cut = any(trial.status not in {"finished", "diverged"} for trial in counted)
    metric = search.metric
    values = [_row(value, members, metric, is_cut=is_cut) for value, members in groups.items()]
    sign = sign_of(metric)
    values.sort(key=lambda v: math.inf if v["best"] is None else sign * v["best"])
    console.print(
        table(
            f"{search.name} ({search.status}) by {symbol(name)}",
            [symbol(name), "trials", "finished", f"best {metric}", f"median {metric}", "trial",
             "run"],
            [
                [
                    number_in(v["value"]), v["trials"], v["finished"],
                    _loss(v, "best", is_cut=is_cut), _loss(v, "median", is_cut=is_cut),
                    "" if v["best_trial"] is None else v["best_trial"],
                    short_run(v["best_run"] or ""),
                ]
                for v in values
            ],
        )
    )  # fmt: skip
    notes = []
    if is_cut:
        notes.append("Best and median are those of finished trials; others had smaller budgets.")
    if len(counted) < len(trials):
        notes.append("Trial 0, the defaults, is left out: it was not drawn.")
    if notes:
        console.print(f"[dim]{' '.join(notes)}[/dim]", highlight=False, soft_wrap=True)
    return {
        "search": search.name,
        "by": name,
        "metric": metric,
        "only_finished": is_cut,
        "without_defaults": len(counted) < len(trials),
        "values": values,
    }


def _draws(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Those that were drawn; the first one, with the defaults, only if there is no other.

    It takes the turn of a point of a grid, which may run just once.
    """
    return [trial for trial in trials if trial.number > 0] or trials


def _row(value: str, trials: list[TrialRecord], metric: str, *, is_cut: bool) -> dict[str, Any]:
    """What the trials of one value reached; None for a loss that is infinite or not there."""
    finished = [trial for trial in trials if trial.status == "finished"]
    compared = finished if is_cut else trials
    best = min(compared, key=lambda trial: trial.rank(metric), default=None)
    middle = median(trial.loss(metric) for trial in compared) if compared else math.inf
    return {
        "value": value,
        "trials": len(trials),
        "finished": len(finished),
        "best": best.loss(metric) if best and math.isfinite(best.loss(metric)) else None,
        "median": middle if math.isfinite(middle) else None,
        "best_trial": best.number if best else None,
        "best_run": best.run_id if best else None,
    }


def _loss(row: dict[str, Any], name: str, *, is_cut: bool) -> str:
    if is_cut and not row["finished"]:
        return ""
    return "∞" if row[name] is None else f"{row[name]:.4f}"
