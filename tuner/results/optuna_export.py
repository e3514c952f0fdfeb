"""Trials of a search as trials of an Optuna study."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.conductor.board import Board
from tuner.conductor.outcome import INTERRUPTED
from tuner.conductor.trial import Trial
from tuner.samplers.observation import Observation
from tuner.samplers.optuna_sampler import distribution_of
from tuner.space.space import SearchSpace

_STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
_DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


def study_of(name: str, space: SearchSpace, trials: Sequence[Trial]) -> optuna.Study:
    """Return the trials of a search as a study in memory.

    The user attribute `trial` of each trial of the study is its number in the search.
    """
    study = optuna.create_study(
        study_name=name,
        directions=[_DIRECTIONS[objective.mode] for objective in space.objectives],
        sampler=optuna.samplers.RandomSampler(),
    )
    with warnings.catch_warnings():
        # plots show the names of metrics, which Optuna marks as experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in space.objectives])
    board = Board(space.objectives, len(trials), 0)
    for trial in trials:
        has_ended = trial.outcome not in {None, INTERRUPTED}
        if has_ended and trial.reports and not trial.is_duplicate:
            study.add_trial(_study_trial(space, trial, board.observation(trial)))
    return study


def _study_trial(space: SearchSpace, trial: Trial, observation: Observation) -> FrozenTrial:
    """Return a trial as Optuna stores it."""
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
        if p.label in trial.draw and p.contains(trial.draw[p.label])  # the range may be edited
    }
    return optuna.trial.create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,
        params={label: trial.draw[label] for label in distributions},
        distributions=distributions,
        # Optuna accepts curves for a single objective only
        intermediate_values=reports if len(signs) == 1 else {},
        user_attrs={"outcome": observation.state, "trial": trial.number},
    )
