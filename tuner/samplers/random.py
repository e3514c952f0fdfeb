"""Sampler `random`: independent draws."""

from __future__ import annotations

from tuner.samplers.kind import SamplerKind, optuna_sampler

KIND = SamplerKind(
    says="draws independently",
    make=optuna_sampler("RandomSampler"),
    for_several_objectives=True,
    uses_observations=False,
)
