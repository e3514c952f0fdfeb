"""Cells of atlas.py: a text, a size and a budget each, and the configurations that are trained.

Widths, layers and tokens give models from 40 thousand to 3 million weights. In each cell, a
scrambled Sobol sequence draws the configurations; three quarters of them lie around the learning
rates that are good at the width. One half draws all rows of the symbol table, the other half only
those whose best values move with size and budget. One configuration in each cell is trained with
several seeds, which tells the noise of a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

TEXTS = ("code", "prose", "markup")
VOCABULARY, CONTEXT, REPORTS, VALIDATION = 1024, 64, 3, 16_384
BETA2 = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
# rows that only one half of the configurations draw; the other half has these
USUAL = {"β1": 0.9, "τ": 1.0, "T_warmup": 0.05, "α_min": 0.1}
_DIMENSIONS = 8
_WIDE, _NARROW = (1 / 12, 5.0), (1 / 5, 3.0)  # learning rates, as multiples of the centre
_LONGEST_UPDATES = 30  # the least number of updates of a trial
_SLOT = 8  # sequences of a tick, at most


@dataclass(frozen=True)
class Size:
    """Shape of a model, and the number of configurations for each budget in tokens."""

    d_model: int
    n_layers: int
    configurations: Mapping[int, int]
    seeds: int

    @property
    def centre(self) -> float:
        """A learning rate that is good at this width, by the searches of lm.yaml."""
        return float(0.016 * (64 / self.d_model) ** 0.75)


SIZES = (
    Size(16, 2, {125_000: 90, 500_000: 60, 2_000_000: 24}, 5),
    Size(32, 2, {125_000: 90, 500_000: 60, 2_000_000: 24}, 5),
    Size(64, 3, {125_000: 48, 500_000: 30, 2_000_000: 10}, 4),
    Size(128, 4, {125_000: 24, 500_000: 10}, 2),
    Size(192, 6, {125_000: 12, 500_000: 3}, 1),
)


@dataclass(frozen=True)
class Row:
    """A trial of the atlas.

    Attributes:
        key: name of the trial, which does not change when configurations are added.
        share: place of the trial in its cell, in [0, 1): a run that is cut off has trained about
            the same share of every cell.
    """

    key: str
    share: float
    text: str
    size: Size
    tokens: int
    seed: int
    values: Mapping[str, float]

    def space(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the space of the trial, as the content of a file; its hyperparameters are set.

        Args:
            data: the `data:` section of the text.
        """
        v, d = self.values, self.size.d_model
        return {
            "name": "atlas",
            "data": dict(data),
            "tokenizer": {"vocab_size": VOCABULARY},
            "model": {
                "d_model": d,
                "n_layers": self.size.n_layers,
                "n_heads": max(1, d // 16),
                "context_length": CONTEXT,
            },
            "hyperparameters": {
                "α_max": v["α_max"],
                "α_min": {"fraction_of": "α_max", "value": v["α_min"]},
                "T_warmup": {"fraction_of": "T_total", "value": v["T_warmup"]},
                **{symbol: v[symbol] for symbol in ("β1", "β2", "λ", "τ")},
                "B": int(v["B"]),
                "optimizer": "adamw",
            },
            "engine": {"micro_batch": min(_SLOT, int(v["B"]))},
            "budget": {
                "tokens": self.tokens,
                "reports": REPORTS,
                "validation_tokens": VALIDATION,
            },
        }


def rows() -> list[Row]:
    """Return all trials of the atlas, in the order in which they are trained."""
    every = [
        row
        for text in TEXTS
        for size in SIZES
        for tokens in size.configurations
        for row in _cell(text, size, tokens)
    ]
    return sorted(every, key=lambda row: row.share)


def _cell(text: str, size: Size, tokens: int) -> Iterator[Row]:
    name, count = f"{text}/{size.d_model}x{size.n_layers}/{tokens}", size.configurations[tokens]
    numbers = [TEXTS.index(text), size.d_model, tokens]
    sobol = qmc.Sobol(_DIMENSIONS, scramble=True, rng=np.random.default_rng(numbers))
    points = sobol.random_base2(math.ceil(math.log2(count)))[:count].tolist()
    for number, point in enumerate(points):
        values = _values(number, point, size, tokens)
        yield Row(f"{name}/{number}", (number + 0.5) / count, text, size, tokens, 0, values)
    usual = {"α_max": size.centre, "B": 8.0, "λ": 0.1, "β2": 0.98, **USUAL}
    for seed in range(size.seeds):
        key, share = f"{name}/seed {seed}", (seed + 0.5) / size.seeds
        yield Row(key, share, text, size, tokens, seed, usual)


def _values(number: int, point: list[float], size: Size, tokens: int) -> dict[str, float]:
    """Return the values at a point of the unit cube."""
    rate, batch, decay, beta2, beta1, clip, warmup, end = point
    low, high = _WIDE if number % 4 == 0 else _NARROW
    most = int(math.log2(tokens / CONTEXT / _LONGEST_UPDATES))
    values = {
        "α_max": size.centre * low * (high / low) ** rate,
        "B": 2.0 ** (1 + int(batch * min(6, most))),
        "λ": 0.005 * 200**decay,
        "β2": BETA2[int(beta2 * len(BETA2))],
        **USUAL,
    }
    if number % 2 == 0:
        values |= {
            "β1": 0.8 + 0.15 * beta1,
            "τ": 0.25 * 16**clip,
            "T_warmup": 0.2 * warmup,
            "α_min": 0.01 * 50**end,
        }
    return {name: float(f"{value:.6g}") for name, value in values.items()}
