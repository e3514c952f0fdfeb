"""Optimum of each size: a bowl in the logarithms of α and B, and what noise makes of it.

All trials of a size locate its optimum, not only the best one. Source: Step Law (arXiv:2503.04715),
where optima smoothed in this way predict better than the best trials. Its parabola is one of the
shapes here: where losses rise faster above the best rate than below it, a parabola misses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # importing scipy.stats takes a second more

from tuner.errors import TunerError
from tuner.results.bowls import (
    BEYOND,
    QUANTILES,
    Bowl,
    BowlFits,
    Floats,
    bottom,
    fit_bowls,
    height,
    near,
)
from tuner.scaling.runs import ScalingRun, SizeRuns
from tuner.texts.formatting import counted, listed

RESAMPLES = 1000
FEWEST_SIZES = 3
_COEFFICIENTS = {1: 3, 2: 6}  # of a bowl of one or two hyperparameters, its shape not counted
_VALUES: Mapping[str, Callable[[ScalingRun], float]] = {
    "α_max": lambda run: run.rate, "B": lambda run: run.batch,
}  # fmt: skip


@dataclass(frozen=True)
class SizeOptimum:
    """The smoothed optimum of one size.

    Attributes:
        size: its trials.
        kept: number of trials near the best one, to which the bowl was fitted.
        values: hyperparameter → best value.
        intervals: hyperparameter → ends of its 90 % interval.
        loss: loss of the bowl at the optimum.
        edges: hyperparameters whose optimum lies at the edge of the trials, or beyond; it is then
            unknown, and the size enters no law.
        cost: loss of an octave off the optimum, the mean of both sides.
        shape: number of the most probable shape of the bowl.
    """

    size: SizeRuns
    kept: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    loss: float
    edges: tuple[str, ...]
    cost: float
    shape: int

    def curve(self, name: str, values: Floats) -> Floats:
        """Return losses of the bowl over values of its only hyperparameter."""
        octaves = np.log2(values / self.values[name])
        return np.asarray(self.loss + self.cost * height(octaves, np.array(self.shape)))


@dataclass(frozen=True)
class Optima:
    """Optima of all sizes, and draws of those that enter laws.

    Attributes:
        all: every optimum.
        used: those that do not lie at an edge, G of them.
        draws: hyperparameter, or `loss` → (1 + R, G): the fit, then R draws; hyperparameters as
            natural logarithms.
        noise: standard deviation of a trial's loss around the bowl.
        freedom: degrees of freedom of the noise.
        few: sentences about sizes that were left out because their trials are few.
    """

    all: Sequence[SizeOptimum]
    used: Sequence[SizeOptimum]
    draws: dict[str, Floats]
    noise: float
    freedom: int
    few: Sequence[str]


def smooth(sizes: Sequence[SizeRuns], *, resamples: int = RESAMPLES) -> Optima:
    """Fit a bowl to the trials of each size; all sizes have its shape and the noise in common.

    Few trials of one size say little about either.

    Args:
        sizes: trials of three or more sizes.
        resamples: number R of draws.

    Raises:
        TunerError: if fewer than three sizes have enough trials or an optimum, or nothing is left
            to measure noise with.
    """
    names = [name for name, value in _VALUES.items() if _differs(sizes, value)]
    if not names:
        raise TunerError(
            "the finished trials of each size have one learning rate and one B: search α_max with "
            "'search: {scheduler: none}', so that several values finish at each size"
        )
    chosen, few = [], []
    for size in sizes:
        bowl = _bowl(size, names)
        if bowl is None:
            few.append(
                f"{size.parameters:,} weights at {size.tokens:,.0f} tokens, "
                f"{counted(len(size.runs), 'trial')}"
            )
        else:
            chosen.append((size, bowl))
    if len({size.parameters for size, _ in chosen}) < FEWEST_SIZES:
        least = "three different values" if len(names) == 1 else "seven trials with three values"
        raise TunerError(
            f"a scaling law needs three sizes with {least} of {listed(names, 'and')} near the best "
            f"trial, got {len({size.parameters for size, _ in chosen})}"
            + (f"; too few have {listed(few, 'and')}" if few else "")
        )
    freedom = sum(len(bowl.y) - _COEFFICIENTS[len(names)] for _, bowl in chosen)
    if freedom < 2:
        raise TunerError(
            "no trials are left to measure noise with: a bowl through three trials of each size "
            "always fits; add a learning rate, or seeds by 'confirm:'"
        )
    fits = fit_bowls([bowl for _, bowl in chosen], resamples)
    optima = [_optimum(*pair, names, fits, i) for i, pair in enumerate(chosen)]
    used = [i for i, optimum in enumerate(optima) if not optimum.edges]
    if len({optima[i].size.parameters for i in used}) < FEWEST_SIZES:
        at = [f"{o.size.parameters:,}" for o in optima if o.edges]
        raise TunerError(
            f"fewer than three sizes have an optimum between their trials: it lies at the edge, or "
            f"there is none, for the sizes of {listed(at, 'and')} weights; widen the range of "
            f"{listed(sorted({e for o in optima for e in o.edges}), 'and')}"
        )
    lowest = [_lowest(chosen[i][1], fits, i) for i in used]
    draws = {
        name: np.stack([at[:, k] for at, _ in lowest], axis=1) * np.log(2)
        for k, name in enumerate(names)
    }
    draws["loss"] = np.stack([losses for _, losses in lowest], axis=1)
    heavier = stdtrit(freedom, QUANTILES[1]) / stdtrit(np.inf, QUANTILES[1])
    noise = float(fits.noise[0] * heavier)
    return Optima(optima, [optima[i] for i in used], draws, noise, freedom, few)


def optimum_of(size: SizeRuns) -> SizeOptimum | None:
    """Return the smoothed optimum of one size; None if its trials are too few."""
    names = [name for name, value in _VALUES.items() if _differs([size], value)]
    bowl = _bowl(size, names) if names else None
    if bowl is None or len(bowl.y) < _COEFFICIENTS[len(names)] + 1:
        return None
    return _optimum(size, bowl, names, fit_bowls([bowl], RESAMPLES), 0)


def _differs(sizes: Sequence[SizeRuns], value: Callable[[ScalingRun], float]) -> bool:
    return any(len({value(run) for run in size.runs}) > 1 for size in sizes)


def _bowl(size: SizeRuns, names: Sequence[str]) -> Bowl | None:
    """Return the trials near the best one; None if they are too few for a bowl."""
    runs = size.runs
    x: Floats = np.log2(np.array([[_VALUES[name](run) for name in names] for run in runs]))
    y = np.array([run.loss for run in runs])
    is_near = near(x, y)
    x, y = x[is_near], y[is_near]
    v = x[:, 1:]
    parabola = np.column_stack([np.ones(len(y)), x, x**2, *([x[:, 0] * x[:, 1]] if v.size else [])])
    values = [len(np.unique(x[:, k].round(6))) for k in range(x.shape[1])]
    has_few = min(values) < 3 or (len(names) > 1 and len(y) <= parabola.shape[1])
    if has_few or np.linalg.matrix_rank(parabola, tol=1e-6) < parabola.shape[1]:
        return None
    return Bowl(
        x[:, 0], y, np.column_stack([np.ones(len(y)), v, v**2]), v[:, 0] if v.size else None
    )


def _lowest(bowl: Bowl, fits: BowlFits, number: int) -> tuple[Floats, Floats]:
    """Return log2 of the best hyperparameters, (1 + R, k), and the losses there, (1 + R,)."""
    places, others = fits.places[number], fits.others[number]
    if bowl.tilt is None:
        return places, others[:, 0]
    level, slope, curve = others.T  # a parabola in B of the losses at the best rate of each B
    v = bottom(slope, curve, bowl.tilt.min() - BEYOND, bowl.tilt.max() + BEYOND)
    at = np.stack([places[:, 0] + places[:, 1] * (v - bowl.tilt.mean()), v], axis=1)
    return at, level + slope * v + curve * v**2


def _optimum(
    size: SizeRuns, bowl: Bowl, names: Sequence[str], fits: BowlFits, number: int
) -> SizeOptimum:
    at, losses = _lowest(bowl, fits, number)
    middle, ends = np.median(at[1:], axis=0), 2.0 ** np.quantile(at[1:], QUANTILES, axis=0)
    tried = [bowl.x, *([] if bowl.tilt is None else [bowl.tilt])]
    edges = tuple(
        name for name, x, m in zip(names, tried, middle, strict=True) if not x.min() < m < x.max()
    )
    return SizeOptimum(
        size, len(bowl.y), {n: float(2 ** at[0, k]) for k, n in enumerate(names)},
        {n: (float(ends[0, k]), float(ends[1, k])) for k, n in enumerate(names)},
        float(losses[0]), edges, float(fits.costs[0, number]), int(fits.shapes[0]),
    )  # fmt: skip
