"""Running mean of a trial's weights for validation, θ̄ ← θ̄ + share·(θ − θ̄)."""

from __future__ import annotations


def averaging_share(step: int, decay: float) -> float:
    """Return the share of the new weights in their mean after an update; 0 with a decay of 0.

    1 − min(β_ema, (1+t)/(10+t)): the first updates weigh more, so that the initial weights do not
    dominate the mean of a short trial.

    Source: TensorFlow's ExponentialMovingAverage with num_updates.
    """
    return 1 - min(decay, (1 + step) / (10 + step)) if decay else 0.0
