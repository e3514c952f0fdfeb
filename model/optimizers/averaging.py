"""The running mean of a trial's weights, θ̄ ← θ̄ + share·(θ − θ̄), which validation uses."""

from __future__ import annotations


def averaging_share(step: int, decay: float) -> float:
    """Share of the new weights in their mean after an update; 0 with a decay of 0.

    1 − min(β_ema, (1+t)/(10+t)): the first updates count for more, so that a short trial is not
    held back by where it started. Source: TensorFlow's ExponentialMovingAverage with num_updates.
    """
    return 1 - min(decay, (1 + step) / (10 + step)) if decay else 0.0
