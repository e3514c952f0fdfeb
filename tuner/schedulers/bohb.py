"""Scheduler `bohb`: hyperband, with a sampler that models the results at one number of tokens.

Source: Falkner et al. 2018, "BOHB: robust and efficient hyperparameter optimization at scale"
(arXiv:1807.01774). `samplers` models the largest number of tokens that enough trials have reached.
"""

from __future__ import annotations

from dataclasses import replace

from tuner.schedulers import hyperband
from tuner.schedulers.rungs import promotions

KIND = replace(
    hyperband.KIND,
    says=lambda space: (
        f"{promotions(space)}, in brackets; TPE models the largest budget that enough trials "
        f"reached"
    ),
    sampler="tpe",
)
