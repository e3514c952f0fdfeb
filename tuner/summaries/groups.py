"""Trials of a search grouped by the value of one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from model.spec.hyperparameters import find_symbol
from tuner.errors import TunerError
from tuner.space.objective import sign_of
from tuner.space.parameter import SIZES, SPELLINGS
from tuner.texts.formatting import did_you_mean, shown
from tuner.tracking.records import SearchRecord, TrialRecord, drawn
from tuner.tracking.tags import Tag


@dataclass(frozen=True)
class ParameterGroup:
    """The trials with one value of a parameter.

    Attributes:
        value: value of the parameter, as MLflow keeps it.
        trials: number of trials.
        finished: number of trials that were trained to the end.
        best: best objective of the compared trials; None if it is infinite or missing.
        median: their median objective; None if it is infinite or missing.
        best_trial: number of the best trial.
        best_run: run of the best trial.
    """

    value: str
    trials: int
    finished: int
    best: float | None
    median: float | None
    best_trial: int | None
    best_run: str | None

    @classmethod
    def of(
        cls, value: str, trials: Sequence[TrialRecord], metric: str, *, only_finished: bool
    ) -> ParameterGroup:
        """Summarize the trials of one value."""
        finished = [trial for trial in trials if trial.status == "finished"]
        compared = finished if only_finished else trials
        best = min(compared, key=lambda trial: trial.rank(metric), default=None)
        lowest = best.loss(metric) if best else math.inf
        middle = median(trial.loss(metric) for trial in compared) if compared else math.inf
        return cls(
            value,
            len(trials),
            len(finished),
            lowest if math.isfinite(lowest) else None,
            middle if math.isfinite(middle) else None,
            best.number if best else None,
            best.run_id if best else None,
        )


@dataclass(frozen=True)
class ParameterGroups:
    """The values of one parameter of a search, the best first.

    Losses are compared at one budget. If all trials trained to the end, each of them counts, a
    diverged one with an infinite loss; if trials were stopped early, only finished trials count.
    Trial 0 has the defaults, which were not drawn: it counts only for a value that no other trial
    has. With `search.defaults: off` it was drawn as all others.

    Attributes:
        search: name of the search.
        by: name of the parameter.
        metric: name of the objective.
        only_finished: True if losses are of finished trials only.
        without_defaults: True if trial 0 does not count.
        values: groups.
    """

    search: str
    by: str
    metric: str
    only_finished: bool
    without_defaults: bool
    values: tuple[ParameterGroup, ...]

    @classmethod
    def of(
        cls, trials: Sequence[TrialRecord], search: SearchRecord, spelling: str
    ) -> ParameterGroups:
        """Group the trials of a search.

        Args:
            trials: its trials by number.
            search: record of the search.
            spelling: of the parameter, as the user wrote it.

        Raises:
            TunerError: if no trial of the search has such a parameter.
        """
        row = find_symbol(spelling)
        name = row.name if row else spelling
        started = [trial for trial in drawn(trials) if trial.parameters]  # a new run has none yet
        trials = [trial for trial in started if name in trial.parameters]
        if not started:
            raise TunerError(f"--by: no trial of {search.name} has started; try again in a moment")
        if not trials:
            fix = did_you_mean(spelling, (*SPELLINGS, *SIZES)) or "; 'tuner symbols' lists all"
            raise TunerError(f"--by: unknown parameter {shown(spelling)}{fix}")
        members: dict[str, list[TrialRecord]] = {}
        for trial in trials:
            members.setdefault(trial.parameters[name], []).append(trial)
        if search.tags.get(Tag.DEFAULTS) != "off":
            members = {value: _without_defaults(group) for value, group in members.items()}
        counted = [trial for group in members.values() for trial in group]
        is_cut = any(trial.status not in {"finished", "diverged"} for trial in counted)
        metric, sign = search.metric, sign_of(search.metric)
        groups = [
            ParameterGroup.of(value, group, metric, only_finished=is_cut)
            for value, group in members.items()
        ]
        groups.sort(key=lambda group: math.inf if group.best is None else sign * group.best)
        return cls(search.name, name, metric, is_cut, len(counted) < len(trials), tuple(groups))


def _without_defaults(trials: list[TrialRecord]) -> list[TrialRecord]:
    """Return the trials except trial 0, unless there is no other.

    In a grid trial 0 takes the place of a point, and each point may be trained once.
    """
    return [trial for trial in trials if trial.number > 0] or trials
