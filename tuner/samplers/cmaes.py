"""Sampler `cmaes`: Optuna's CMA-ES, an evolution strategy over numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.samplers.kind import SamplerKind
from tuner.space.parameter import Choice

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


KIND = SamplerKind(
    says="evolves a normal distribution (CMA-ES)",
    make=_make,
    models=lambda parameter: not parameter.when and not isinstance(parameter.distribution, Choice),
    models_what="numbers that every trial has",
    keeps_state=True,
)
