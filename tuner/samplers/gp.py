"""Sampler `gp`: Bayesian optimisation with Optuna's Gaussian process."""

from __future__ import annotations

from tuner.samplers.kind import SamplerKind, optuna_sampler
from tuner.samplers.tpe import STARTUP

KIND = SamplerKind(
    says="models the objective as a Gaussian process",
    make=optuna_sampler("GPSampler", n_startup_trials=STARTUP, warn_independent_sampling=False),
    models=lambda parameter: not parameter.when,
    models_what="parameters that every trial has",
    uses_torch=True,
)
