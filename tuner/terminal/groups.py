"""Table of the values of one parameter, with the trials that have them: `tuner show --by`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console

from model.spec.hyperparameters import find_symbol
from tuner.errors import TunerError
from tuner.formatting import did_you_mean, number_in, short_run, shown
from tuner.space.objective import sign_of
from tuner.space.parameter import SIZES, SPELLINGS, symbol
from tuner.terminal.tables import table
from tuner.tracking.records import SearchRecord, TrialRecord, drawn
from tuner.tracking.tags import Tag


def print_groups(
    console: Console, trials: Sequence[TrialRecord], search: SearchRecord, spelling: str
) -> dict[str, Any]:
    """Print, for each value of a parameter, its number of trials and the objective they reached.

    Losses are compared at one budget. If all trials trained to the end, each of them counts, a
    diverged one with an infinite loss; if trials were stopped early, only finished trials count.
    Trial 0 has the defaults, which were not drawn: it counts only for a value that no other trial
    has. With `search.defaults: off` it was drawn as all others.

    Args:
        console: output.
        trials: its trials by number.
        search: record of the search.
        spelling: of the parameter, as the user wrote it.

    Returns:
        The object of --json.

    Raises:
        TunerError: if no trial of the search has such a parameter.
    """
    row = find_symbol(spelling)
    name = row.name if row else spelling
    searched = drawn(trials)
    started = [trial for trial in searched if trial.parameters]  # a new run has none yet
    trials = [trial for trial in started if name in trial.parameters]
    if not started:
        raise TunerError(f"--by: no trial of {search.name} has started; try again in a moment")
    if not trials:
        fix = did_you_mean(spelling, (*SPELLINGS, *SIZES)) or "; 'tuner symbols' lists all"
        raise TunerError(f"--by: unknown parameter {shown(spelling)}{fix}")
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.parameters[name], []).append(trial)
    if search.tags.get(Tag.DEFAULTS) != "off":
        groups = {value: _without_defaults(members) for value, members in groups.items()}
    counted = [trial for members in groups.values() for trial in members]
    is_cut = any(trial.status not in {"finished", "diverged"} for trial in counted)
    metric = search.metric
    values = [_group(value, members, metric, is_cut=is_cut) for value, members in groups.items()]
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
                    _group_loss(v, "best", is_cut=is_cut), _group_loss(v, "median", is_cut=is_cut),
                    "" if v["best_trial"] is None else v["best_trial"],
                    short_run(v["best_run"] or ""),
                ]
                for v in values
            ],
        )
    )  # fmt: skip
    notes = []
    if is_cut:
        notes.append("Best and median are of finished trials; the others had smaller budgets.")
    if len(counted) < len(trials):
        notes.append("Trial 0 (the defaults) is excluded: it was not drawn.")
    if notes:
        console.print(" ".join(notes), style="dim", highlight=False, soft_wrap=True)
    return {
        "search": search.name,
        "by": name,
        "metric": metric,
        "only_finished": is_cut,
        "without_defaults": len(counted) < len(trials),
        "values": values,
    }


def _without_defaults(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Return the trials except trial 0, unless there is no other.

    In a grid trial 0 takes the place of a point, and each point may be trained once.
    """
    return [trial for trial in trials if trial.number > 0] or trials


def _group(value: str, trials: list[TrialRecord], metric: str, *, is_cut: bool) -> dict[str, Any]:
    """Summarize the trials of one value; a loss is None if it is infinite or missing."""
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


def _group_loss(group: dict[str, Any], name: str, *, is_cut: bool) -> str:
    if is_cut and not group["finished"]:
        return ""
    return "∞" if group[name] is None else f"{group[name]:.4f}"
