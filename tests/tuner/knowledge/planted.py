"""Evidence from planted bowls, whose best settings and losses are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tuner.knowledge.evidence import Evidence
from tuner.knowledge.settings import SETTINGS

Floats = npt.NDArray[np.float64]
SMALL = [(n, d) for n in (1e4, 1e5, 1e6) for d in (1e5, 1e6)]
_CURVATURES = np.array([0.03, 0.015, 0.003, 0.002, 0.004, 0.001, 0.5, 0.002])


def best(weights: float, tokens: float) -> Floats:
    """The planted best places: other laws than the published ones, of every setting."""
    values = (
        0.9 * weights**-0.5 * tokens**0.1, 3.0 * tokens**0.45, 0.2, 0.98, 0.88, 0.8, 0.1, 0.05,
    )  # fmt: skip
    return np.array([s.place(v) for s, v in zip(SETTINGS, values, strict=True)])


def lowest(weights: float, tokens: float, text: str) -> float:
    """The planted lowest loss, by Chinchilla's form."""
    factor = {"code": 1.0, "prose": 1.2}[text]
    return factor * (1.6 + 4.0 * weights**-0.2 + 30.0 * tokens**-0.3)


def planted(
    sizes: Sequence[tuple[float, float]] = SMALL,
    texts: Sequence[str] = ("code", "prose"),
    count: int = 24,
    seed: int = 0,
) -> Evidence:
    """Trials around the planted best settings, with noise of 0.3 %."""
    rng = np.random.default_rng(seed)
    points, all_sizes, cells, names, losses = [], [], [], [], []
    for text in texts:
        for weights, tokens in sizes:
            off = rng.normal(size=(count, len(SETTINGS))) * [
                1.0,
                0.8,
                1.0,
                0.7,
                0.4,
                0.8,
                0.05,
                1.0,
            ]
            regrets = (off**2) @ _CURVATURES + 0.02 * off[:, 0] * off[:, 1]
            noise = rng.normal(size=count) * 0.003
            points.append(best(weights, tokens) + off)
            losses.append(lowest(weights, tokens, text) * np.exp(np.abs(regrets) + noise))
            all_sizes.append(np.tile(np.log([weights, tokens, weights]), (count, 1)))
            cells += [f"{text} {weights} {tokens}"] * count
            names += [text] * count
    return Evidence(
        np.concatenate(points), np.concatenate(all_sizes), np.array(cells), np.array(names),
        np.concatenate(losses),
    )  # fmt: skip
