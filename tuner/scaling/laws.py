"""Power laws through the optima of sizes, with bootstrap intervals, and what they predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.errors import TunerError
from tuner.results.bowls import Estimate, Floats, bottom
from tuner.scaling.optima import FEWEST_SIZES, Optima
from tuner.scaling.saturating import Saturating, fit_saturating
from tuner.texts.formatting import listed

Kind = Literal["sizes", "isoflop", "levels", "joint"]

_LEVEL = 1.15  # trainings whose operations differ by less are of one budget of compute
_FOLLOWS = 0.05  # tokens follow the size if log tokens deviate from a line by less
_DIGITS = 3

DESCRIPTIONS: Mapping[Kind, str] = {
    "sizes": "tokens follow the size, so that all laws have one variable",
    "isoflop": "one budget of compute: the laws hold along it, and the loss has a best size",
    "levels": "several budgets of compute: the laws hold at the best size of each",
    "joint": "tokens vary apart from the size: the laws have both as variables",
}


@dataclass(frozen=True)
class BestSize:
    """The best size for one budget of compute.

    Attributes:
        flops: the budget.
        parameters: weights of the best model.
        loss: its loss.
        is_edge: True if it lies at the edge of the sizes, and is therefore unknown.
    """

    flops: float
    parameters: Estimate
    loss: Estimate
    is_edge: bool


@dataclass(frozen=True)
class Law:
    """A law of one quantity.

    Attributes:
        quantity: `α_max`, `B`, `loss`, or `parameters` (the best size for a budget of compute).
        variables: what it depends on: parameters, tokens, flops.
        exponents: of each variable; of a loss with a constant, those of what is above it.
        constant: the constant of a loss; None for a pure power law.
    """

    quantity: str
    variables: Sequence[str]
    exponents: Sequence[Estimate]
    constant: Estimate | None
    _lines: Floats | None  # natural logarithms: 1, slopes, (1 + R, k + 1)
    _saturating: Saturating | None
    _scatter: Floats  # of a new size around the law, (1 + R,), 0 for the value

    def draws(self, at: Mapping[str, float]) -> Floats:
        """Return the values at a point, the fit and then each resample: (1 + R,)."""
        x = np.array([at[name] for name in self.variables])
        if self._saturating is not None:
            return np.asarray(self._saturating.value(x) * np.exp(self._scatter))
        assert self._lines is not None
        logs: Floats = self._lines[:, 0] + self._lines[:, 1:] @ np.log(x) + self._scatter
        return np.asarray(np.exp(logs))

    def predict(self, at: Mapping[str, float]) -> Estimate:
        """Return the prediction at a point: variable → value."""
        return _estimate(self.draws(at))


@dataclass(frozen=True)
class ScalingLaws:
    """All that a scaling study says.

    Attributes:
        kind: how sizes and budgets vary.
        optima: the optima that the laws are fitted to.
        laws: the laws.
        best_sizes: of each budget of compute with three sizes.
        tokens_exponent: exponent by which the tokens of the sizes follow them; NaN if they do not.
    """

    kind: Kind
    optima: Optima
    laws: Sequence[Law]
    best_sizes: Sequence[BestSize]
    tokens_exponent: float

    def tokens_at(self, parameters: float) -> float:
        """Return the tokens that the rule of the sizes gives another size."""
        sizes = [o.size for o in self.optima.used]
        n, d = (np.log([getattr(s, name) for s in sizes]) for name in ("parameters", "tokens"))
        return math.exp(d.mean() + self.tokens_exponent * (math.log(parameters) - n.mean()))


def fit_laws(optima: Optima, variable: str | None = None, only: str | None = None) -> ScalingLaws:
    """Fit the laws of a study.

    Args:
        optima: smoothed optima of three sizes or more.
        variable: `parameters` or `flops`; by default flops for several budgets of compute with
            three sizes each, and parameters otherwise.
        only: fit `α_max` or `B` only, beside the loss.

    Raises:
        TunerError: if the trials cannot tell a law of this variable.
    """
    sizes = [o.size for o in optima.used]
    n, d, c = (np.array([getattr(s, a) for s in sizes]) for a in ("parameters", "tokens", "flops"))
    names = [name for name in optima.draws if name != "loss"]
    if only is not None and only not in names:
        raise TunerError(
            f"{only} has one value in these trials; what they searched: {listed(names)}"
        )
    names = [only] if only else names
    slope, deviation = _line(np.log(n), np.log(d))
    levels = _levels(c, n)
    rng = np.random.default_rng(1)
    has_all = sum(map(len, levels)) == len(sizes)
    best = [_best_size(level, n, c, optima.draws["loss"], rng) for level in levels]
    found = [b for b, _, _ in best]
    tokens_exponent = slope if deviation < _FOLLOWS else math.nan
    if has_all and len(levels) >= FEWEST_SIZES and variable != "parameters":
        edges = [f"{b.flops:.3g}" for b in found if b.is_edge]
        if edges:
            raise TunerError(
                f"the best size lies at the edge of the sizes at {listed(edges, 'and')} FLOPs; "
                f"train smaller or larger models there"
            )
        flops = np.array([[b.flops] for b in found])
        quantities = {"parameters": np.stack([np.log(p) for _, p, _ in best], axis=1)}
        for name in names:
            at = [_along(level, n, optima.draws[name], p)
                  for level, (_, p, _) in zip(levels, best, strict=True)]  # fmt: skip
            quantities[name] = np.stack(at, axis=1)
        laws = [_power(q, ["flops"], flops, y, rng) for q, y in quantities.items()]
        losses = np.stack([loss for _, _, loss in best], axis=1)
        laws.append(_loss(["flops"], flops, losses, optima.noise, rng))
        return ScalingLaws("levels", optima, laws, found, tokens_exponent)
    if has_all and len(levels) == 1:
        if variable == "flops":
            raise TunerError(
                "all trials have one budget of compute, which says nothing about others; train "
                "three budgets, for instance with --set budget.flops=…, and name all searches"
            )
        laws = [_power(q, ["parameters"], n[:, None], optima.draws[q], rng) for q in names]
        return ScalingLaws("isoflop", optima, laws, found, tokens_exponent)
    if deviation < _FOLLOWS and len(set(n)) == len(n):
        name = variable or "parameters"
        x = (c if name == "flops" else n)[:, None]
        laws = [_power(q, [name], x, optima.draws[q], rng) for q in names]
        laws.append(_loss([name], x, optima.draws["loss"], optima.noise, rng))
        return ScalingLaws("sizes", optima, laws, found, tokens_exponent)
    if variable == "flops":
        raise TunerError(
            "tokens vary apart from the size, so that a budget of compute alone says nothing about "
            "the size; give --parameters and --tokens, or three budgets.flops of three sizes each"
        )
    x = np.stack([n, d], axis=1)
    if len(x) < FEWEST_SIZES + 1:
        raise TunerError(
            "tokens vary apart from the size, which needs four combinations of both or more; give "
            "each size as many tokens for each weight, or train more budgets"
        )
    both = ["parameters", "tokens"]
    laws = [_power(q, both, x, optima.draws[q], rng) for q in names]
    laws.append(_loss(both, x, optima.draws["loss"], optima.noise, rng))
    return ScalingLaws("joint", optima, laws, found, math.nan)


def _estimate(draws: Floats) -> Estimate:
    """Take the first as the value, and quantiles of all others."""
    return Estimate.of(float(draws[0]), draws[1:])


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return the slope of a line, and the largest deviation from it."""
    slope, start = np.polyfit(x, y, 1)
    return float(slope), float(np.abs(start + slope * x - y).max())


def _levels(flops: Floats, parameters: Floats) -> list[list[int]]:
    """Return the indices of the sizes of each budget of compute that has three or more."""
    levels: list[list[int]] = []
    for i in sorted(range(len(flops)), key=lambda i: flops[i]):
        if levels and flops[i] < _LEVEL * flops[levels[-1][0]]:
            levels[-1].append(i)
        else:
            levels.append([i])
    return [lv for lv in levels if len({parameters[i] for i in lv}) >= FEWEST_SIZES]


def _scattered(features: Floats, y: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """Add to resamples what sizes deviate from a law beyond what noise explains.

    Args:
        features: of the law, (G, p).
        y: (1 + R, G), the fit first.
        rng: random numbers.

    Returns:
        The values, and the standard deviation that was added.
    """
    freedom = len(features) - features.shape[1]
    if freedom < 1:
        return y, 0.0
    across = np.eye(len(features)) - features @ np.linalg.pinv(features)
    residual = across @ y[0]
    noise = (y[1:] - y[1:].mean(axis=0)) @ across  # what all sizes have in common is no scatter
    explained = (noise**2).sum(axis=1).mean()
    scatter = math.sqrt(max(0.0, float((residual**2).sum() - explained) / freedom))
    added = rng.normal(0, scatter, y.shape) if scatter else np.zeros_like(y)
    added[0] = 0
    return y + added, scatter


def _power(
    quantity: str, variables: Sequence[str], x: Floats, logs: Floats, rng: np.random.Generator
) -> Law:
    """Fit logarithms (1 + R, G) by a line in the logarithms of x, (G, k)."""
    features = np.column_stack([np.ones(len(x)), np.log(x)])
    y, scatter = _scattered(features, logs, rng)
    lines = y @ np.linalg.pinv(features).T
    exponents = [_estimate(column) for column in lines[:, 1:].T]
    return Law(quantity, variables, exponents, None, lines, None, _own(scatter, len(y), rng))


def _loss(
    variables: Sequence[str], x: Floats, losses: Floats, noise: float, rng: np.random.Generator
) -> Law:
    """Fit losses (1 + R, G); with a constant where each variable has three values or more.

    Two variables and a constant need six sizes. The scatter has the noise of one trial as well,
    since a trained target is one.
    """
    values = [len(np.unique(np.log(x[:, k]).round(2))) for k in range(x.shape[1])]
    if min(values) < FEWEST_SIZES or (len(values) == 2 and len(x) < 6):
        law = _power("loss", variables, x, np.log(losses), rng)
        own = law._scatter + _own(noise / float(losses[0].mean()), len(losses), rng)
        return Law("loss", variables, law.exponents, None, law._lines, None, own)
    first = fit_saturating(x, losses[:1])
    fitted = np.array([first.value(row)[0] for row in x])
    freedom = len(x) - 1 - 2 * x.shape[1]
    scatter = 0.0
    if freedom > 0:
        excess = ((losses[0] - fitted) ** 2).sum() / freedom - losses[1:].var(axis=0).mean()
        scatter = math.sqrt(max(0.0, float(excess)))
    added = rng.normal(0, scatter, losses.shape)
    added[0] = 0
    law_draws = fit_saturating(x, losses + added)
    exponents = [_estimate(-column) for column in law_draws.exponents.T]
    relative = math.hypot(noise, scatter) / float(losses[0].min())
    own = _own(relative, len(losses), rng)
    constant = _estimate(law_draws.constant)
    return Law("loss", variables, exponents, constant, None, law_draws, own)


def _own(deviation: float, count: int, rng: np.random.Generator) -> Floats:
    drawn = rng.normal(0, deviation, count) if deviation else np.zeros(count)
    drawn[0] = 0
    return drawn


def _best_size(
    level: Sequence[int], n: Floats, c: Floats, losses: Floats, rng: np.random.Generator
) -> tuple[BestSize, Floats, Floats]:
    """Return the bottom of a parabola in the logarithm of the size, and its resamples."""
    rows = list(level)
    logs = np.log(n[rows])
    middle = logs.mean()
    u = logs - middle
    features = np.stack([np.ones(len(u)), u, u**2], axis=1)
    y, _ = _scattered(features, losses[:, rows], rng)
    coefficients = y @ np.linalg.pinv(features).T
    slope, curve = coefficients[:, 1], coefficients[:, 2]
    reach = math.log(2)
    at = bottom(slope, curve, u.min() - reach, u.max() + reach)
    bottoms = coefficients[:, 0] + slope * at + curve * at**2
    parameters = np.exp(at + middle)
    is_edge = not u.min() < at[0] < u.max()
    flops = math.exp(np.log(c[rows]).mean())
    best = BestSize(flops, _estimate(parameters), _estimate(bottoms), is_edge)
    return best, parameters, bottoms


def _along(level: Sequence[int], n: Floats, logs: Floats, at: Floats) -> Floats:
    """Return logarithms of a hyperparameter at the best sizes of a level, (1 + R,)."""
    rows = list(level)
    features = np.column_stack([np.ones(len(rows)), np.log(n[rows])])
    lines = logs[:, rows] @ np.linalg.pinv(features).T
    return np.asarray(lines[:, 0] + lines[:, 1] * np.log(at))
