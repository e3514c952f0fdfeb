"""Trials of a search as trials of an Optuna study."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.conductor.board import Board
from tuner.conductor.outcome import INTERRUPTED
from tuner.conductor.trial import Trial
from tuner.samplers.observation import Observation
from tuner.samplers.optuna_sampler import distribution_of
from tuner.space.objective import Objective
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

_NUMBER = "trial"  # user attribute: number of the trial in the search
_STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def study_trial(
    space: SearchSpace,
    draw: Mapping[str, Value],
    observation: Observation,
    seconds: float | None = None,
) -> FrozenTrial:
    """Return a trial as Optuna stores and its dashboard shows it.

    Args:
        space: the search space.
        draw: the drawn parameters.
        observation: reports and outcome of the trial.
        seconds: duration of the trial, if it is known.
    """
    signs = [objective.sign for objective in space.objectives]
    reports = {tokens: signs[0] * value for tokens, value in observation.values.items()}
    newest = [reports[max(reports)]] if reports else []
    values = list(observation.objectives) if len(signs) > 1 else newest
    state = _STATES[observation.state]
    if state is TrialState.COMPLETE and len(values) != len(signs):
        state = TrialState.FAIL
    distributions = {
        p.label: distribution_of(p)
        for p in space.searched
        if p.label in draw and p.contains(draw[p.label])  # the range may have been edited
    }
    trial = optuna.trial.create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,
        params={label: draw[label] for label in distributions},
        distributions=distributions,
        # Optuna accepts curves for a single objective only
        intermediate_values=reports if len(signs) == 1 else {},
        user_attrs={"outcome": observation.state},
    )
    if seconds is not None:
        trial.datetime_complete = datetime.now()
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=seconds)
    return trial


def study_of(name: str, space: SearchSpace, trials: Sequence[Trial]) -> optuna.Study:
    """Return the trials of a search as a study in memory.

    The user attribute `trial` of each trial of the study is its number in the search.
    """
    study = optuna.create_study(
        study_name=name,
        directions=_directions(space.objectives),
        sampler=optuna.samplers.RandomSampler(),
    )
    _name_metrics(study, space.objectives)
    board = Board(space.objectives, len(trials), 0)
    for trial in trials:
        has_ended = trial.outcome not in {None, INTERRUPTED}
        if has_ended and trial.reports and not trial.is_duplicate:
            frozen = study_trial(space, trial.draw, board.observation(trial))
            frozen.set_user_attr(_NUMBER, trial.number)
            study.add_trial(frozen)
    return study


def _directions(objectives: Sequence[Objective]) -> list[StudyDirection]:
    kinds = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    return [kinds[objective.mode] for objective in objectives]


def _name_metrics(study: optuna.Study, objectives: Sequence[Objective]) -> None:
    with warnings.catch_warnings():
        # the dashboard shows the names of metrics, which Optuna marks as experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in objectives])
