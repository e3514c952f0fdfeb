"""Sampler `random`: independent draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.samplers.kind import SamplerKind

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


KIND = SamplerKind(
    says="draws independently", make=_make, for_several_objectives=True, uses_observations=False
)
