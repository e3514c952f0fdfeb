"""Sampler `nsga2`: Optuna's NSGA-II, a genetic algorithm for several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.samplers.kind import SamplerKind

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# Trials of one generation. Optuna's 50 is more than the number of trials of most searches.
_POPULATION = 20


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=_POPULATION)


KIND = SamplerKind(
    says="recombines the best configurations (NSGA-II)",
    make=_make,
    for_several_objectives=True,
    keeps_state=True,
)
