"""`tuner show --by optimizer`: the trials of a search, grouped by the value of one parameter."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from rich.console import Console

from model.hyperparameters import find_row
from tuner.errors import TunerError
from tuner.messages import unknown
from tuner.parameters import symbol
from tuner.record import Record, SearchRecord, TrialRecord
from tuner.summary import table


def print_comparison(
    console: Console, record: Record, search: SearchRecord, spelling: str
) -> dict[str, Any]:
    """For each value of a parameter: how many trials had it, and the objective they reached.

    A diverged trial, or one without a report, counts as a trial with an infinite loss.

    Raises:
        TunerError: if the search has no such parameter.
    """
    trials = record.trials(search)
    row = find_row(spelling)
    name = row.name if row else spelling
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if name not in trial.parameters:
            raise TunerError(f"--by: {unknown('parameter', spelling, trial.parameters)}")
        groups.setdefault(trial.parameters[name], []).append(trial)

    def loss(trial: TrialRecord) -> float:
        value = trial.metrics.get(search.metric, math.inf)
        return math.inf if math.isnan(value) or trial.status == "diverged" else value

    values: list[dict[str, Any]] = []
    for value, members in groups.items():
        losses = [loss(trial) for trial in members]
        best = min(members, key=loss)
        values.append(
            {
                "value": value,
                "trials": len(members),
                "finished": sum(trial.status == "finished" for trial in members),
                "best": loss(best) if math.isfinite(loss(best)) else None,
                "median": median(losses) if math.isfinite(median(losses)) else None,
                "best_trial": best.number,
                "best_run": best.run_id,
            }
        )
    values.sort(key=lambda v: (v["best"] is None, v["best"]))
    metric = search.metric
    console.print(
        table(
            f"{search.name} ({search.status}) by {symbol(name)}",
            [symbol(name), "trials", "finished", f"best {metric}", f"median {metric}", "trial",
             "run"],
            [
                [
                    v["value"], v["trials"], v["finished"], _loss(v["best"]), _loss(v["median"]),
                    v["best_trial"], v["best_run"][:8],
                ]
                for v in values
            ],
        )
    )  # fmt: skip
    return {"search": search.name, "by": name, "metric": metric, "values": values}


def _loss(value: float | None) -> str:
    return "∞" if value is None else f"{value:.4f}"
