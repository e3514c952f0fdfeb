"""SizeOptimum of each size: a quadratic in the logarithms of α and B, and what noise makes of it.

The loss near its minimum is a parabola in the logarithm of the learning rate, so all trials of a
size locate its minimum, not only the best one. Source: Step Law (arXiv:2503.04715), where optima
smoothed in this way predict better than the best trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # importing scipy.stats takes a second more

from tuner.errors import TunerError
from tuner.formatting import counted, listed
from tuner.scaling.runs import ScalingRun, SizeRuns

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.9  # of all intervals
QUANTILES = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
FEWEST_SIZES = 3
_WINDOW = 3.0  # octaves around the best trial; farther away, loss is no parabola
_STEEP = 1.1  # times the lowest loss; higher ones nearly diverged, and lie above any parabola
_BEYOND = 1.0  # octaves by which a resampled optimum may leave the trials
_VALUES: Mapping[str, Callable[[ScalingRun], float]] = {
    "α_max": lambda run: run.rate, "B": lambda run: run.batch,
}  # fmt: skip


@dataclass(frozen=True)
class SizeOptimum:
    """The smoothed optimum of one size.

    Attributes:
        size: its trials.
        kept: number of trials near the best one, to which the quadratic was fitted.
        values: hyperparameter → best value.
        loss: loss of the quadratic at the optimum.
        edges: hyperparameters whose optimum lies at the edge of the trials, or beyond; it is then
            unknown, and the size enters no law.
        coefficients: of 1, u, (v), u², (v², u·v), u and v octaves from `centre`.
        centre: log2 of the value of each hyperparameter that is u = 0.
    """

    size: SizeRuns
    kept: int
    values: dict[str, float]
    loss: float
    edges: tuple[str, ...]
    coefficients: Floats
    centre: dict[str, float]


@dataclass(frozen=True)
class Optima:
    """Optima of all sizes, and resamples of those that enter laws.

    Attributes:
        all: every optimum.
        used: those that do not lie at an edge, G of them.
        draws: hyperparameter, or `loss` → (1 + R, G): the fit, then R resamples; hyperparameters
            as natural logarithms.
        noise: standard deviation of a trial's loss around the quadratic.
        freedom: degrees of freedom of the noise.
        few: sentences about sizes that were left out because their trials are few.
    """

    all: Sequence[SizeOptimum]
    used: Sequence[SizeOptimum]
    draws: dict[str, Floats]
    noise: float
    freedom: int
    few: Sequence[str]


@dataclass(frozen=True)
class _Fit:
    """A quadratic of one size: `matrix` maps losses to coefficients."""

    size: SizeRuns
    x: Floats  # (n, k), octaves from the centre
    y: Floats  # (n,)
    centre: Floats
    features: Floats
    matrix: Floats


def smooth(sizes: Sequence[SizeRuns], *, resamples: int = RESAMPLES, seed: int = 0) -> Optima:
    """Fit a quadratic to the trials of each size, and resample its residuals.

    Residuals of all sizes are pooled, since few trials of one size say little about noise. They
    are widened by what degrees of freedom the fits have used, and by Student's t over the normal
    distribution, so that few trials give wide intervals.

    Args:
        sizes: trials of three or more sizes.
        resamples: number R of resamples.
        seed: seed of the resamples.

    Raises:
        TunerError: if fewer than three sizes have enough trials or an optimum, or nothing is left
            to measure noise with.
    """
    names = [name for name, value in _VALUES.items() if _differs(sizes, value)]
    if not names:
        raise TunerError("all trials have one learning rate and one B; search α_max at each size")
    fits, few = [], []
    for size in sizes:
        fit = _fit(size, names)
        if fit is None:
            few.append(f"{size.parameters:,} weights, {counted(len(size.runs), 'trial')}")
        else:
            fits.append(fit)
    if len({fit.size.parameters for fit in fits}) < FEWEST_SIZES:
        least = "three different values" if len(names) == 1 else "seven trials with three values"
        raise TunerError(
            f"a scaling law needs three sizes with {least} of {listed(names, 'and')} near the best "
            f"trial, got {len({fit.size.parameters for fit in fits})}"
            + (f"; too few have {listed(few, 'and')}" if few else "")
        )
    freedom = sum(len(fit.y) - fit.features.shape[1] for fit in fits)
    if freedom < 2:
        raise TunerError(
            "no trials are left to measure noise with: quadratics through three trials of each "
            "size always fit; add a learning rate, or seeds by 'confirm:'"
        )
    found = [_optimum(fit, names) for fit in fits]
    chosen = [i for i, optimum in enumerate(found) if not optimum.edges]
    if len({found[i].size.parameters for i in chosen}) < FEWEST_SIZES:
        at = [f"{o.size.parameters:,}" for o in found if o.edges]
        raise TunerError(
            f"fewer than three sizes have an optimum between their trials: it lies at the edge, or "
            f"there is none, for the sizes of {listed(at, 'and')} weights; widen the range of "
            f"{listed(sorted({e for o in found for e in o.edges}), 'and')}"
        )
    residuals = [fit.y - fit.features @ (fit.matrix @ fit.y) for fit in fits]
    pool = np.concatenate(residuals)
    noise = float(np.sqrt((pool**2).sum() / freedom))
    spread = float(np.sqrt((pool**2).mean()))
    heavier = stdtrit(freedom, QUANTILES[1]) / stdtrit(np.inf, QUANTILES[1])
    widened = (pool - pool.mean()) * (noise * heavier / spread if spread else 0.0)
    rng = np.random.default_rng(seed)
    columns = []
    for i in chosen:
        fit = fits[i]
        fitted = fit.features @ (fit.matrix @ fit.y)
        drawn = fitted + rng.choice(widened, (resamples, len(fit.y)))
        columns.append(_bottoms(np.vstack([fit.y, drawn]) @ fit.matrix.T, fit))
    draws = {
        name: np.stack([(at[:, k] + fits[i].centre[k]) * np.log(2)
                        for i, (at, _) in zip(chosen, columns, strict=True)], axis=1)
        for k, name in enumerate(names)
    }  # fmt: skip
    draws["loss"] = np.stack([losses for _, losses in columns], axis=1)
    return Optima(found, [found[i] for i in chosen], draws, noise * heavier, freedom, few)


def optimum_of(size: SizeRuns) -> SizeOptimum | None:
    """Return the smoothed optimum of one size; None if its trials are too few."""
    names = [name for name, value in _VALUES.items() if _differs([size], value)]
    fit = _fit(size, names) if names else None
    return _optimum(fit, names) if fit else None


def _differs(sizes: Sequence[SizeRuns], value: Callable[[ScalingRun], float]) -> bool:
    return any(len({value(run) for run in size.runs}) > 1 for size in sizes)


def _fit(size: SizeRuns, names: Sequence[str]) -> _Fit | None:
    """Fit the trials near the best one; None if they are too few for it."""
    runs = size.runs
    x: Floats = np.log2(np.array([[_VALUES[name](run) for name in names] for run in runs]))
    y = np.array([run.loss for run in runs])
    near = (np.abs(x - x[y.argmin()]) <= _WINDOW + 1e-9).all(axis=1) & (y <= _STEEP * y.min())
    x, y = x[near], y[near]
    centre: Floats = x.mean(axis=0)
    u = np.asarray(x - centre, dtype=np.float64)
    features: Floats = _features(u)
    values = [len(np.unique(x[:, k].round(6))) for k in range(x.shape[1])]
    has_few = min(values) < 3 or (len(names) > 1 and len(y) <= features.shape[1])
    if has_few or np.linalg.matrix_rank(features, tol=1e-6) < features.shape[1]:
        return None
    matrix = np.asarray(np.linalg.pinv(features), dtype=np.float64)
    return _Fit(size, u, y, centre, features, matrix)


def _features(u: Floats) -> Floats:
    """Return 1, u, (v), u², (v², u·v) of each row of (n, k), k = 1 or 2."""
    columns = [np.ones(len(u)), *u.T, *(u**2).T]
    return np.stack([*columns, u[:, 0] * u[:, 1]] if u.shape[1] == 2 else columns, axis=1)


def _bottoms(c: Floats, fit: _Fit) -> tuple[Floats, Floats]:
    """Return the minima of quadratics within the trials and an octave: (R, k), and losses (R,).

    Args:
        c: coefficients, (R, 3) or (R, 6).
        fit: the trials.
    """
    k = fit.x.shape[1]
    low, high = fit.x.min(axis=0) - _BEYOND, fit.x.max(axis=0) + _BEYOND
    if k == 1:
        slope, curve = c[:, 1], c[:, 2]
        has_bottom = curve > 0
        at = np.where(has_bottom, -slope / (2 * np.where(has_bottom, curve, 1)),
                      np.where(slope > 0, low[0], high[0]))[:, None]  # fmt: skip
    else:
        hessian = np.stack([2 * c[:, 3], c[:, 5], c[:, 5], 2 * c[:, 4]], axis=1).reshape(-1, 2, 2)
        has_bottom = (np.linalg.det(hessian) > 0) & (c[:, 3] > 0)
        solvable = np.where(has_bottom[:, None, None], hessian, np.eye(2))
        at = -np.linalg.solve(solvable, c[:, 1:3, None])[..., 0]
        at = np.where(has_bottom[:, None], at, np.where(c[:, 1:3] > 0, low, high))
    at = np.clip(at, low, high)
    return at, (_features(at) * c).sum(axis=1)


def _optimum(fit: _Fit, names: Sequence[str]) -> SizeOptimum:
    c = fit.matrix @ fit.y
    (at,), (loss,) = _bottoms(c[None], fit)
    low, high = fit.x.min(axis=0), fit.x.max(axis=0)
    edges = tuple(n for k, n in enumerate(names) if not low[k] < at[k] < high[k])
    values = {n: float(2 ** (at[k] + fit.centre[k])) for k, n in enumerate(names)}
    centre = {n: float(fit.centre[k]) for k, n in enumerate(names)}
    return SizeOptimum(fit.size, len(fit.y), values, float(loss), edges, c, centre)
