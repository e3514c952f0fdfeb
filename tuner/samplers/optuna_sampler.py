"""Optuna's samplers without hidden state: a suggestion is a function of the recorded trials.

A sampler of Optuna has a random generator whose history matters. Here every suggestion comes from a
fresh sampler, seeded by the search's seed and the number of the trial. So a search resumes by
recording its trials again. Two samplers keep state in the attributes of the trials (CMA-ES its
distribution, NSGA-II its generations): this state is restored by repeating the suggestions.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from model.device.threads import one_thread
from tuner.samplers.kind import Draw, SamplerKind
from tuner.samplers.observation import AllFeedback
from tuner.samplers.optuna_storage import TrialTable, make_trial
from tuner.space.parameter import Choice, Constant, Parameter, Value

if TYPE_CHECKING:
    from tuner.space.space import SearchSpace

# its warnings are handled here or not caused by the user: a missing speed-up, for instance
optuna.logging.set_verbosity(optuna.logging.ERROR)

_BEST = 25  # TPE counts at most so many trials as good


class OptunaStudy:
    """An Optuna study: the trials that the samplers know, and their suggestions.

    Args:
        space: search space.
        num_objectives: number of objectives; all are minimized.
    """

    def __init__(self, space: SearchSpace, num_objectives: int = 1) -> None:
        self._space = space
        self._distributions = {p.label: distribution_of(p) for p in space.searched}
        self._table = TrialTable()
        self._ranked: list[tuple[tuple[float, ...], int]] = []  # ended trials, best first
        with warnings.catch_warnings():
            # Optuna requires a sampler here; `ask` replaces it
            self._study = optuna.create_study(
                storage=self._table,
                sampler=optuna.samplers.RandomSampler(),
                directions=["minimize"] * num_objectives,
            )

    def ask(self, number: int, kind: SamplerKind, seed: int, fixed: Mapping[str, Value]) -> Draw:
        """Draw a trial, which then counts as running.

        Args:
            number: number of the trial.
            kind: sampler to ask, one of Optuna's.
            seed: seed of the sampler.
            fixed: label → value of the parameters that are not sampled.
        """
        assert kind.make is not None
        self._table.next_number = number
        self._study.sampler = kind.make(seed)
        self._table.visible = self._visible(kind.max_trials)
        # a suggestion after 50 trials with 11 parameters took 1.13 CPU-seconds with two threads,
        # 0.20 with one
        with one_thread() if kind.uses_torch else nullcontext():
            trial, drawn = self._study.ask(), Draw()
            for p in self._space.searched:
                if self._space.is_drawn(p, drawn):
                    drawn[p.label] = fixed[p.label] if p.label in fixed else _suggest(trial, p)
        return drawn

    def _visible(self, max_trials: int | None) -> list[optuna.trial.FrozenTrial] | None:
        """Return the ended trials that a sampler sees; None if it sees all."""
        if max_trials is None or len(self._ranked) <= max_trials or len(self._study.directions) > 1:
            return None
        trials = self._table.trials
        seen = {number for _, number in self._ranked[:_BEST]}
        newest = (n for n in reversed(trials) if trials[n].state.is_finished() and n not in seen)
        seen.update(islice(newest, max_trials - len(seen)))
        return [trials[number] for number in sorted(seen)]

    def _replace(self, trial: optuna.trial.FrozenTrial) -> None:
        """Write a trial to the table, and update the ranking."""
        number, old = trial.number, self._table.trials.get(trial.number)
        if old is not None and old.state.is_finished():
            del self._ranked[bisect_left(self._ranked, (_rank(old), number))]
        if trial.state.is_finished():
            insort(self._ranked, (_rank(trial), number))
        self._table.trials[number] = trial

    def put(self, number: int, draw: Mapping[str, Value], *, keep: bool) -> None:
        """Record a running trial.

        Args:
            number: number of the trial.
            draw: draw of the trial; it replaces the draw of `ask`.
            keep: True to keep the attributes that the sampler stored. If False, the recorded trial
                does not depend on whether the sampler was asked.
        """
        old = self._table.trials.get(number)
        self._replace(
            make_trial(
                number,
                TrialState.RUNNING,
                draw,
                self._distributions_of(draw),
                system_attrs=dict(old.system_attrs) if keep and old else {},
            )
        )

    def update(self, feedback: AllFeedback, ended: Iterable[int]) -> None:
        """Record ended trials, replacing earlier records; one without feedback counts as failed.

        Args:
            feedback: by number of the trial.
            ended: numbers of the trials to record.
        """
        for number in ended:
            values, old = feedback.get(number), self._table.trials[number]
            if values is None:
                parts: dict[str, Any] = {"state": TrialState.FAIL}
            elif values.values is None:
                parts = {"state": TrialState.PRUNED, "intermediate_values": dict(values.reports)}
            else:
                parts = {"state": TrialState.COMPLETE, "values": list(values.values)}
            self._replace(
                make_trial(
                    number,
                    params=old.params,
                    distributions=old.distributions,
                    system_attrs=old.system_attrs,
                    **parts,
                )
            )

    def _distributions_of(self, draw: Mapping[str, Value]) -> dict[str, BaseDistribution]:
        return {label: self._distributions[label] for label in draw}


def _rank(trial: optuna.trial.FrozenTrial) -> tuple[float, ...]:
    """Return the sort key of TPE: value, then tokens and last value of a pruned trial."""
    if trial.state is TrialState.COMPLETE:
        return (0, 0, trial.values[0])
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return (1, -step, value)
    return (2, 0, 0.0)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Return the distribution of a parameter as Optuna's."""
    d = parameter.distribution
    if isinstance(d, Constant):
        return CategoricalDistribution([d.value])
    if isinstance(d, Choice):
        return CategoricalDistribution(d.values)
    if d.is_whole:
        return IntDistribution(int(d.low), int(d.high), log=d.is_log)
    return FloatDistribution(d.low, d.high, log=d.is_log)


def _suggest(trial: optuna.trial.Trial, parameter: Parameter) -> Value:
    """Return a sampled value of a parameter as a plain JSON type."""
    d, label = parameter.distribution, parameter.label
    assert not isinstance(d, Constant)
    if isinstance(d, Choice):
        return cast(Value, trial.suggest_categorical(label, d.values))
    if d.is_whole:
        return int(trial.suggest_int(label, int(d.low), int(d.high), log=d.is_log))
    return float(trial.suggest_float(label, d.low, d.high, log=d.is_log))
