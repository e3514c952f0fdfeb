"""Trials of sizes whose laws are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tuner.scaling.runs import ScalingRun

RATE, LOSS = -0.35, (1.7, 2.0, 0.3)  # exponent of α_max; E, A and a of the loss, N in millions
COST = 0.04  # of an octave of α_max from its optimum
MILLION = 10**6


def best_rate(n: float) -> float:
    return float(3e-3 * (n / MILLION) ** RATE)


def best_loss(n: float) -> float:
    constant, factor, exponent = LOSS
    return float(constant + factor * (n / MILLION) ** -exponent)


def made_runs(
    sizes: Sequence[int],
    *,
    seed: int = 0,
    noise: float = 0.01,
    rates: int = 5,
    tokens: Callable[[int], float] = lambda n: 20 * n,
    batches: Sequence[int] = (8,),
    loss: Callable[[float, float], float] = lambda n, d: best_loss(n),
    rate: Callable[[float, float], float] = lambda n, d: best_rate(n),
    above: float = 1.0,
) -> list[ScalingRun]:
    """Trials at rates about an octave apart around a shifted optimum, and for each batch size.

    Above the best rate a loss is `above` times as far from the lowest as below it.
    """
    rng = np.random.default_rng(seed)
    runs: list[ScalingRun] = []
    for n in sizes:
        d = tokens(n)
        shift = rng.uniform(-0.5, 0.5)
        for batch in batches:
            for k in range(rates):
                u = k - (rates - 1) / 2 + shift
                v = np.log2(batch / 16) if len(batches) > 1 else 0.0
                off = COST * u**2 * (above if u > 0 else 1) + 0.02 * v**2 - 0.01 * u * v
                value = loss(n, d) + off + rng.normal(0, noise)
                runs.append(
                    ScalingRun("s-1", len(runs), n, round(d), 6.0 * n * d, rate(n, d) * 2**u,
                               batch, float(value))
                )  # fmt: skip
    return runs
