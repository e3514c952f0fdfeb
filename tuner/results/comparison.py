"""Compares the best trial of a search with the defaults, after equal training.

A loss after a part of the budget says little about the loss after all of it, so no value is
compared with one at another report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.conductor.trial import Trial

if TYPE_CHECKING:
    from tuner.results.result import SearchResult


@dataclass(frozen=True)
class Comparison:
    """The best trial and the defaults at the same report.

    Attributes:
        value: objective of the best trial.
        defaults: objective of trial 0, which has the defaults.
        place: number of the report.
        is_final: True if both trials were trained to the end.
        change: improvement over the defaults, in percent; negative if the best trial is worse.
    """

    value: float
    defaults: float
    place: int
    is_final: bool
    change: float


def compare_with_defaults(result: SearchResult) -> Comparison | None:
    """Compare the best trial with trial 0 at the last report that both have reached.

    Returns:
        The comparison; None without a trial of the defaults, if it is the best, or if a value is
        missing or not finite.
    """
    best, first = result.best, result.defaults
    if first is None:
        return None
    place = min(best.place, first.place)
    value, base = best.value_at(result.metric, place), first.value_at(result.metric, place)
    if best is first or value is None or base is None:
        return None
    if not math.isfinite(value) or not math.isfinite(base):
        return None
    change = 100 * result.space.objective.sign * (base - value) / abs(base) if base else 0.0
    is_final = best.has_finished and first.has_finished
    return Comparison(value, base, place, is_final, change)


def has_best_value(result: SearchResult) -> bool:
    """Return True if no finished trial is better than the best one.

    Fresh seeds may have confirmed another trial than the best one of the search.
    """
    best = result.rank(result.best)
    return all(best <= result.rank(trial) for trial in result.trials if trial.has_finished)


def only_defaults_finished(result: SearchResult) -> bool:
    """Return True if a search has other trials than trial 0, and none was trained to the end.

    Only for a search whose trial 0 has the defaults.
    """
    others = [trial for trial in result.trials if trial.number != 0]
    return bool(others) and not any(trial.has_finished for trial in others)


def cut_leader(result: SearchResult) -> Trial | None:
    """Return a trial that was better than the best one when it was cut, if a search was cut short.

    A search is cut short by a limit or an interruption. Of several such trials, the one that was
    trained furthest is returned, and of these the best.
    """
    if result.halted is None and result.limit is None:
        return None
    rank, metric = result.space.objective.rank, result.metric

    def is_better(trial: Trial) -> bool:
        if trial.has_finished or trial.has_diverged or trial.has_failed or not trial.reports:
            return False
        value = result.best.value_at(metric, trial.place)
        return value is not None and rank(trial.objective(metric)) < rank(value)

    leaders = [trial for trial in result.trials if is_better(trial)]
    return min(leaders, key=lambda t: (-t.place, rank(t.objective(metric))), default=None)
