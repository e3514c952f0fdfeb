"""Optuna's samplers, made so that what they suggest is a function of what they were told.

A sampler of Optuna is a generator of random numbers and a method. Here every suggestion is made by
a fresh one, seeded by the search's seed and the number of the trial: no generator's history
matters, and a search resumes by telling its trials again. What two samplers keep in the attributes
of the trials (CMA-ES its distribution, NSGA-II its generations) comes back by repeating the asks.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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

from tuner.samplers.observation import AllFeedback
from tuner.samplers.optuna_storage import TrialTable, make_trial
from tuner.space.parameter import Choice, Constant, Parameter, Value

if TYPE_CHECKING:
    from tuner.space.space import SearchSpace

# what it warns of is either handled here or no fault of the user: a missing speed-up, for instance
optuna.logging.set_verbosity(optuna.logging.ERROR)

Draw = dict[str, Value]
# Trials of one generation. Optuna's 50 is more than most searches here have trials.
_POPULATION = 20
_STARTUP = 10  # trials that are told before a model of them is used; Optuna's default
# Trials that TPE looks at: the best ones, then the newest. It reads them for each suggestion, which
# took 50 ms after 2,500, and gives less weight to older ones anyway.
_MOST = 1_000
_BEST = 25  # that are "good" to TPE however many there are


def _tpe(seed: int, startup: int = _STARTUP) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # group is marked experimental; it is what lets TPE handle conditional parameters
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=startup
        )


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=_STARTUP, warn_independent_sampling=False
    )


def _cmaes(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)


@dataclass(frozen=True)
class Method:
    """A sampler of Optuna.

    Attributes:
        make: a fresh one from a seed.
        learns: whether it looks at what was told.
        knows_stopped: whether it understands trials that did not reach their end.
        remembers: whether it keeps something in the attributes of the trials.
        calculates: whether it does so with torch.
        most: ended trials that it looks at, if there is one objective; None: all.
    """

    make: Callable[[int], optuna.samplers.BaseSampler]
    learns: bool = True
    knows_stopped: bool = False
    remembers: bool = False
    calculates: bool = False
    most: int | None = None


METHODS: Mapping[str, Method] = {
    "tpe": Method(_tpe, knows_stopped=True, most=_MOST),
    "gp": Method(_gp, calculates=True),
    "cmaes": Method(_cmaes, remembers=True),
    "nsga2": Method(_nsga2, remembers=True),
    "random": Method(lambda seed: optuna.samplers.RandomSampler(seed=seed), learns=False),
}


def tpe_of(startup: int) -> Method:
    """TPE whose model is used after so many trials."""
    return Method(lambda seed: _tpe(seed, startup), knows_stopped=True, most=_MOST)


class OptunaStudy:
    """The trials that a sampler knows, and the way to ask it.

    Args:
        space: what may vary.
        objectives: how many; all are made smaller.
    """

    def __init__(self, space: SearchSpace, objectives: int = 1) -> None:
        self._space = space
        self._distributions = {p.label: distribution_of(p) for p in space.searched}
        self._table = TrialTable()
        self._ranked: list[tuple[tuple[float, ...], int]] = []  # ended trials, best first
        with warnings.catch_warnings():
            # a sampler that nobody asks is made for want of another
            self._study = optuna.create_study(
                storage=self._table,
                sampler=optuna.samplers.RandomSampler(),
                directions=["minimize"] * objectives,
            )

    def ask(self, number: int, method: Method, seed: int, fixed: Mapping[str, Value]) -> Draw:
        """Draw a trial; some labels may be given. It then counts as under way."""
        self._table.next_number = number
        self._study.sampler = method.make(seed)
        self._table.visible = self._visible(method.most)
        with _one_thread() if method.calculates else nullcontext():
            trial, drawn = self._study.ask(), Draw()
            for p in self._space.searched:
                if self._space.is_drawn(p, drawn):
                    drawn[p.label] = fixed[p.label] if p.label in fixed else _suggest(trial, p)
        return drawn

    def _visible(self, most: int | None) -> list[optuna.trial.FrozenTrial] | None:
        """The ended trials that a sampler sees; None if it sees all."""
        if most is None or len(self._ranked) <= most or len(self._study.directions) > 1:
            return None
        trials = self._table.trials
        seen = {number for _, number in self._ranked[:_BEST]}
        newest = (n for n in reversed(trials) if trials[n].state.is_finished() and n not in seen)
        seen.update(islice(newest, most - len(seen)))
        return [trials[number] for number in sorted(seen)]

    def _replace(self, trial: optuna.trial.FrozenTrial) -> None:
        """Put a trial in the place of an older state of it, if there is one."""
        number, old = trial.number, self._table.trials.get(trial.number)
        if old is not None and old.state.is_finished():
            del self._ranked[bisect_left(self._ranked, (_rank(old), number))]
        if trial.state.is_finished():
            insort(self._ranked, (_rank(trial), number))
        self._table.trials[number] = trial

    def put(self, number: int, draw: Mapping[str, Value], *, keep: bool) -> None:
        """A trial is under way.

        Args:
            number: of the trial.
            draw: its parameters, whatever was asked for.
            keep: whether attributes that the sampler has given to it are kept; without, it is the
                same whether it was asked or only recorded.
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

    def teach(self, lessons: AllFeedback, ended: Iterable[int]) -> None:
        """Replace what is known of trials that have ended; those without a lesson say nothing."""
        for number in ended:
            lesson, old = lessons.get(number), self._table.trials[number]
            if lesson is None:
                parts: dict[str, Any] = {"state": TrialState.FAIL}
            elif lesson.values is None:
                parts = {"state": TrialState.PRUNED, "intermediate_values": dict(lesson.reports)}
            else:
                parts = {"state": TrialState.COMPLETE, "values": list(lesson.values)}
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
    """By which TPE compares: by value, then by how far a pruned one got, and its last value."""
    if trial.state is TrialState.COMPLETE:
        return (0, 0, trial.values[0])
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return (1, -step, value)
    return (2, 0, 0.0)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """What Optuna calls what a parameter is drawn from."""
    d = parameter.distribution
    if isinstance(d, Constant):
        return CategoricalDistribution([d.value])
    if isinstance(d, Choice):
        return CategoricalDistribution(d.values)
    if d.is_whole:
        return IntDistribution(int(d.low), int(d.high), log=d.is_log)
    return FloatDistribution(d.low, d.high, log=d.is_log)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices of a hundred trials gain nothing by threads, and lose much on busy cores.

    A suggestion after 50 trials with 11 parameters took 1.13 CPU-seconds with two threads, 0.20
    with one.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _suggest(trial: optuna.trial.Trial, parameter: Parameter) -> Value:
    """One value, as plain JSON types."""
    d, label = parameter.distribution, parameter.label
    assert not isinstance(d, Constant)
    if isinstance(d, Choice):
        return cast(Value, trial.suggest_categorical(label, d.values))
    if d.is_whole:
        return int(trial.suggest_int(label, int(d.low), int(d.high), log=d.is_log))
    return float(trial.suggest_float(label, d.low, d.high, log=d.is_log))
