"""Sampler `nsga2`: Optuna's NSGA-II, a genetic algorithm for several objectives."""

from __future__ import annotations

from tuner.samplers.kind import SamplerKind, optuna_sampler

# Trials of one generation. Optuna's 50 is more than the number of trials of most searches.
_POPULATION = 20

KIND = SamplerKind(
    says="recombines the best configurations (NSGA-II)",
    make=optuna_sampler("NSGAIISampler", population_size=_POPULATION),
    for_several_objectives=True,
    keeps_state=True,
)
