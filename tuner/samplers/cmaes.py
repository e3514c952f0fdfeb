"""Sampler `cmaes`: Optuna's CMA-ES, an evolution strategy over numbers."""

from __future__ import annotations

from tuner.samplers.kind import SamplerKind, optuna_sampler
from tuner.space.parameter import Choice

KIND = SamplerKind(
    says="evolves a normal distribution (CMA-ES)",
    make=optuna_sampler("CmaEsSampler", warn_independent_sampling=False),
    models=lambda parameter: not parameter.when and not isinstance(parameter.distribution, Choice),
    models_what="numbers that every trial has",
    keeps_state=True,
)
