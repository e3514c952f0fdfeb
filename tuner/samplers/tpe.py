"""Sampler `tpe`: Optuna's tree-structured Parzen estimator.

Source: Watanabe 2023, "Tree-structured Parzen estimator" (arXiv:2304.11127).
"""

from __future__ import annotations

from tuner.samplers.kind import SamplerKind, optuna_sampler

STARTUP = 10  # observed trials before a model of them is used; Optuna's default
# Trials that TPE reads: the best ones, then the newest. TPE reads them for each suggestion, which
# took 50 ms with 2,500 trials, and gives less weight to older ones anyway.
_MOST_TRIALS = 1_000


def tpe_of(startup: int) -> SamplerKind:
    """Return TPE with a number of random trials before its model is used."""
    return SamplerKind(
        says="models good and bad configurations (TPE)",
        # TPE needs `group` for conditional parameters
        make=optuna_sampler("TPESampler", multivariate=True, group=True, n_startup_trials=startup),
        for_several_objectives=True,
        supports_stopped=True,
        max_trials=_MOST_TRIALS,
    )


KIND = tpe_of(STARTUP)
