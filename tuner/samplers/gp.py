"""Sampler `gp`: Bayesian optimisation with Optuna's Gaussian process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.samplers.kind import SamplerKind
from tuner.samplers.tpe import STARTUP

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False)


KIND = SamplerKind(
    says="models the objective as a Gaussian process",
    make=_make,
    models=lambda parameter: not parameter.when,
    models_what="parameters that every trial has",
    uses_torch=True,
)
