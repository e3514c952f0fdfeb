"""Optuna's samplers as a Ray Tune searcher, by ask and tell.

Ray's own bridge tells a stopped trial as complete with the loss of its last rung, and leaves a
diverged one running for ever. Here every report is an intermediate value and a trial that did not
reach the end is PRUNED: TPE then ranks it behind those that went further.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from model.report import Report, Status
from model.spec import TrialSpec
from tuner.corpus_facts import CorpusFacts
from tuner.parameters import Choice, Constant, Parameter, Value
from tuner.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # group is marked experimental; it is what lets TPE handle conditional parameters
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": _tpe,
}


class OptunaSearcher(Searcher):
    """Suggests trials: the defaults first, then the sampler's, `grid` parameters in turn.

    Args:
        space: what may vary.
        corpus: what a specification must know of the data.
        on_suggest: is told number, draw and specification of each new trial.
    """

    def __init__(
        self,
        space: SearchSpace,
        corpus: CorpusFacts,
        on_suggest: Callable[[int, TrialSpec], None] | None = None,
    ) -> None:
        super().__init__(metric=space.objective.metric, mode=space.objective.mode)
        self._space = space
        self._objective = space.objective.metric
        self._corpus = corpus
        self._on_suggest = on_suggest
        self._study = optuna.create_study(sampler=SAMPLERS[space.search.sampler](space.search.seed))
        self._asked: dict[str, optuna.trial.Trial] = {}  # by Tune's trial id
        self._count = 0
        self._grid = space.grid

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: see `save`."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The configuration of the next trial."""
        number, self._count = self._count, self._count + 1
        fixed = self._space.defaults() if number == 0 else self._grid[number % len(self._grid)]
        if fixed:
            self._study.enqueue_trial(fixed)
        trial = self._asked[trial_id] = self._study.ask()
        spec = self._space.spec(self._draw(trial), self._corpus, self._space.search.seed)
        if self._on_suggest:
            self._on_suggest(number, spec)
        return {"number": number, "spec": spec.model_dump_json()}

    def _draw(self, trial: optuna.trial.Trial) -> dict[str, Value]:
        drawn: dict[str, Value] = {}
        for parameter in self._space.parameters:
            if not isinstance(parameter.distribution, Constant) and self._space.is_drawn(
                parameter, drawn
            ):
                drawn[parameter.label] = _suggest(trial, parameter)
        return drawn

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An intermediate value."""
        report: Report = result["report"]
        if report.status is not Status.DIVERGED:
            self._asked[trial_id].report(result[self._objective], report.tokens)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended."""
        if trial_id not in self._asked:
            return
        if error or not result:
            self._study.tell(self._asked.pop(trial_id), state=TrialState.FAIL)
        elif result["report"].status is Status.FINISHED:
            self._study.tell(self._asked.pop(trial_id), result[self._objective])
        else:  # stopped early; or diverged, and then it ranks by its reports before, or last
            self.on_trial_result(trial_id, result)
            self._study.tell(self._asked.pop(trial_id), state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: searches are not resumed from Ray's snapshots, which it takes all the same."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
        raise NotImplementedError("a search cannot be resumed from Ray's snapshot")


def _suggest(trial: optuna.trial.Trial, parameter: Parameter) -> Value:
    d, label = parameter.distribution, parameter.label
    assert not isinstance(d, Constant)
    if isinstance(d, Choice):
        return cast(Value, trial.suggest_categorical(label, d.values))
    if d.is_whole:
        return trial.suggest_int(label, int(d.low), int(d.high), log=d.kind == "int_log")
    return trial.suggest_float(label, d.low, d.high, log=d.kind == "log")


class Asha(AsyncHyperBandScheduler):
    """Ray's asynchronous successive halving, with two changes.

    A diverged trial takes no part, where Ray would put a NaN on the rung. And trial 0, the
    defaults, is judged like any other but never stopped: it is what the best is compared with.

    Source: Li et al. 2018 (arXiv:1810.05934), the stopping variant.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return str(self.CONTINUE if trial.config["number"] == 0 else decision)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Record the last rung."""
        if result["report"].status is Status.DIVERGED:
            self.on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, result)
