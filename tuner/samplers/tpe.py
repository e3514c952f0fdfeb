"""Sampler `tpe`: Optuna's tree-structured Parzen estimator.

Source: Watanabe 2023, "Tree-structured Parzen estimator" (arXiv:2304.11127).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tuner.samplers.kind import SamplerKind

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

STARTUP = 10  # observed trials before a model of them is used; Optuna's default
# Trials that TPE reads: the best ones, then the newest. TPE reads them for each suggestion, which
# took 50 ms with 2,500 trials, and gives less weight to older ones anyway.
_MOST_TRIALS = 1_000


def _make(seed: int, startup: int = STARTUP) -> BaseSampler:
    import optuna

    with warnings.catch_warnings():
        # `group` is marked experimental; TPE needs it for conditional parameters
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=startup
        )


KIND = SamplerKind(
    says="models good and bad configurations (TPE)",
    make=_make,
    for_several_objectives=True,
    supports_stopped=True,
    max_trials=_MOST_TRIALS,
)


def tpe_of(startup: int) -> SamplerKind:
    """Return TPE with a number of random trials before its model is used."""
    return replace(KIND, make=partial(_make, startup=startup))
