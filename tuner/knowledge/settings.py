"""The settings of a trial that knowledge is about, each on a scale on which losses are smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.spec.hyperparameters import SYMBOL_TABLE, Hyperparameters

Floats = npt.NDArray[np.float64]

OPTIMIZERS, SCHEDULES = ("adamw",), ("cosine", "linear")  # of the trials that can be compared
_LEAST_END, _NO_CLIP = 1e-3, 8.0  # of α_max, in place of 0; a clip of 0 is none


@dataclass(frozen=True)
class Setting:
    """A setting, its scale, and what is believed before any trial.

    Attributes:
        name: row of the symbol table.
        unit: what its value is counted in: "", or "tokens" for the batch, or a row for a share.
        place: value → place on the scale.
        value: place → value.
        ends: smallest and largest value that is suggested.
        level: best value at the size and the budget of `CENTRE`, and the deviation of its place.
        slopes: exponents of the best value in weights and tokens, and their deviations.
        curvature: regret (log of the loss) of one unit from the best place, and its deviation as
            that of a logarithm.
        spread: deviation of the best places of texts and models around the power law.
    """

    name: str
    unit: str
    place: Callable[[float], float]
    value: Callable[[float], float]
    ends: tuple[float, float]
    level: tuple[float, float]
    slopes: tuple[tuple[float, float], tuple[float, float]]
    curvature: tuple[float, float]
    spread: float

    @property
    def limits(self) -> tuple[float, float]:
        """Places of the ends."""
        return self.place(self.ends[0]), self.place(self.ends[1])

    @property
    def symbol(self) -> str:
        """Symbol of the row."""
        return SYMBOL_TABLE[self.name].symbol

    @property
    def unit_text(self) -> str:
        """What follows a value: ` tokens`, ` · T_total`."""
        if self.unit in SYMBOL_TABLE:
            return f" · {SYMBOL_TABLE[self.unit].symbol}"
        return f" {self.unit}" if self.unit else ""


CENTRE = (math.log(2e5), math.log(5e5))  # log weights and log tokens that the levels are for


def _log_memory(beta: float) -> float:
    return -math.log1p(-min(beta, 1 - 1e-6))


def _beta(place: float) -> float:
    return -math.expm1(-place)


# Levels and slopes of rate, batch and decay are replaced by published laws (`laws.py`). The others
# are broad, and hardly move with size and budget.
_FLAT = ((0.0, 0.03), (0.0, 0.03))
SETTINGS = (
    Setting(
        "max_learning_rate", "", math.log, math.exp, (1e-6, 1.0),
        (0.012, 0.8), ((-0.7, 0.25), (0.3, 0.15)), (0.02, 0.7), 0.25,
    ),
    Setting(
        "batch_size", "tokens", math.log, math.exp, (1, 1e9),
        (1000, 0.8), ((0.0, 0.1), (0.57, 0.2)), (0.01, 0.8), 0.3,
    ),
    Setting(
        "weight_decay", "", lambda v: math.log(max(v, 1e-4)), math.exp, (1e-3, 3.0),
        (0.1, 1.0), ((0.2, 0.2), (-0.2, 0.2)), (0.002, 1.0), 0.5,
    ),
    Setting(
        "beta2", "", _log_memory, _beta, (0.8, 0.9999), (0.97, 0.8), _FLAT, (0.001, 1.0), 0.2
    ),
    Setting("beta1", "", _log_memory, _beta, (0.5, 0.99), (0.9, 0.4), _FLAT, (0.002, 1.0), 0.1),
    Setting(
        "grad_clip", "", lambda v: math.log(v or _NO_CLIP), math.exp, (0.05, _NO_CLIP),
        (1.0, 0.8), _FLAT, (0.001, 1.0), 0.2,
    ),
    Setting(
        "warmup_steps", "total_steps", lambda v: v, lambda v: v, (0.0, 0.5),
        (0.08, 0.08), ((0.0, 0.003), (0.0, 0.003)), (0.3, 1.0), 0.02,
    ),
    Setting(
        "min_learning_rate", "max_learning_rate", lambda v: math.log(max(v, _LEAST_END)), math.exp,
        (_LEAST_END, 1.0), (0.07, 1.0), _FLAT, (0.002, 1.0), 0.2,
    ),
)  # fmt: skip
NAMES = tuple(setting.name for setting in SETTINGS)


def point(h: Hyperparameters, context_length: int) -> list[float]:
    """Return the place of a trial on each scale, (D,)."""
    values = (
        h.max_learning_rate,
        h.batch_size * context_length,
        h.weight_decay,
        h.beta2,
        h.beta1,
        h.grad_clip,
        h.warmup_steps / h.total_steps,
        h.min_learning_rate / h.max_learning_rate,
    )
    return places(values)


def places(values: tuple[float, ...]) -> list[float]:
    """Return the place of values, in the order and the units of `SETTINGS`."""
    return [setting.place(value) for setting, value in zip(SETTINGS, values, strict=True)]
