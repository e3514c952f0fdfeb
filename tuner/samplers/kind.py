"""What a sampler is to the other rooms: its facts, and how to make it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.space.parameter import Parameter, Value
from tuner.space.space import SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Draw = dict[str, Value]


@dataclass(frozen=True)
class SamplerKind:
    """A sampler; one of `make`, `sequence` and `points` says how it suggests.

    Attributes:
        says: what the sampler does, after "sampler NAME, which".
        make: returns a fresh sampler of Optuna for a seed.
        sequence: returns a function from the number of a trial to its draw, with values of all
            searched parameters.
        points: returns the draws to suggest, in order, without those that are tried first.
        for_several_objectives: True if the sampler suggests for several objectives.
        models: True for a parameter that the sampler models; others are drawn at random.
        models_what: the modelled parameters in words, if these are not all.
        uses_observations: True if suggestions depend on earlier trials.
        supports_stopped: True if the sampler can use trials that were stopped early.
        keeps_state: True if the sampler stores state in the attributes of the trials.
        uses_torch: True if the sampler computes with torch.
        max_trials: ended trials that the sampler reads, with one objective; None for all.
    """

    says: str
    make: Callable[[int], BaseSampler] | None = None
    sequence: Callable[[SearchSpace], Callable[[int], Draw]] | None = None
    points: Callable[[SearchSpace, list[Draw]], list[Draw]] | None = None
    for_several_objectives: bool = False
    models: Callable[[Parameter], bool] = lambda parameter: True
    models_what: str = ""
    uses_observations: bool = True
    supports_stopped: bool = False
    keeps_state: bool = False
    uses_torch: bool = False
    max_trials: int | None = None


def optuna_sampler(name: str, **options: Any) -> Callable[[int], BaseSampler]:
    """Return a function from a seed to a sampler of Optuna, which is imported on the first call.

    Args:
        name: class in `optuna.samplers`.
        options: arguments of the class.
    """

    def make(seed: int) -> BaseSampler:
        import optuna

        with warnings.catch_warnings():  # `group` of TPE is marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: BaseSampler = getattr(optuna.samplers, name)(seed=seed, **options)
            return sampler

    return make
