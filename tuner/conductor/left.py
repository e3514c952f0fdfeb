"""What more trials of a search could still find: an interval of the best loss.

Near the optimum of a space, the loss of a random configuration is the least expected loss plus a
quadratic form of a few effective parameters, plus the noise of seeds. So the losses below a
threshold are distributed as α + (β − α)·U^(2/γ) + σ·Z, with U uniform and Z normal: α the least
expected loss, γ the effective number of parameters, σ the deviation of seeds. α, γ and σ are not
known; their posterior is summed over a grid, and every number below is a mean over it.

The lowest 40 % of the finished trials, or 2·√n of them, are this tail. Trials that were paused or
stopped count as trials that did not reach it; a diverged trial, too.

Source: Lourie, He and Cho 2025, Hyperparameter Loss Surfaces Are Simple Near their Optima
(arXiv:2510.02721).

A = values of α, S = of σ, G = of γ, n = losses of the tail, V = losses at which a distribution is
computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tuner.conductor.trial import Trial
from tuner.samplers.registry import SAMPLERS
from tuner.schedulers.registry import SCHEDULERS, no_draws
from tuner.space.first_draws import first_draws
from tuner.space.parameter import Value
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.float64]

FEWEST = 8  # losses after equal training
_QUANTILES = (0.05, 0.5, 0.95)
# A smaller share of few losses holds the truth less often (of 16 trials of a bowl of five
# parameters 84 % with a third), a larger one reaches losses that no quadratic describes. Of many
# losses a smaller share suffices: 2·√n.
_TAIL_SHARE, _TAIL_ROOT, _FEWEST_IN_TAIL = 0.4, 2.0, 6

# Trials are random draws, trained to the end, only without a sampler that learns and a scheduler
# that compares. A draw of such a sampler counts as two, and with either of them the interval is
# wider: then it holds as often in replayed searches (`bench/search_quality.py left`).
_DRAWS_OF_LEARNING, _MARGIN = 2, 1.5

# The grid, in units of the distance from the lowest loss, 0, to the threshold, 1. That distance is
# a share of the threshold's distance from α; the prior of the share is uniform.
_SHARES = np.linspace(0.1, 1.1, 24)
_ALPHA = 1 - 1 / _SHARES  # (A,); above 0 if the best trial had a lucky seed
_SIGMA = np.array([0.01, 0.03, 0.1, 0.3])  # (S,)
_HALF_GAMMA = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # (G,)
_LOSSES = np.append(-np.geomspace(0.003, 10, 40)[::-1], 0.0)  # (V,), 0 is the lowest so far


@dataclass(frozen=True)
class Left:
    """The best value of the objective after more trials, as many as there were.

    Attributes:
        more: number of trials more.
        trials: number of trials whose losses this was estimated from.
        place: report of these losses: the last one, or an earlier one that enough trials reached.
        places: number of reports of a complete trial.
        best: best value of the objective so far.
        low: end of the 90 % interval of the best value after `more` trials where most is gained.
        median: median of that value.
        high: the other end.
        share: what `low` gains, as a share of `best`; less is left with a probability of 95 %.
    """

    more: int
    trials: int
    place: int
    places: int
    best: float
    low: float
    median: float
    high: float
    share: float


def estimate_left(
    space: SearchSpace, trials: Sequence[Trial], proposed: Sequence[Mapping[str, Value]] = ()
) -> Left | None:
    """Return what as many trials as a search had could still find; None if it cannot be told.

    Args:
        space: the searched space.
        trials: trials of the search; those that cool down or confirm do not count.
        proposed: draws that earlier searches proposed, which the sampler did not draw.

    Returns:
        None with several objectives, with a list of points or a population instead of draws, and
        before `FEWEST` drawn trials have reported and one has finished.
    """
    searched = sorted((t for t in trials if t.is_searched), key=lambda t: t.number)
    ranks = _ranks(space, [t for t in searched if t.has_finished])
    drawn = _drawn(space, searched, proposed)
    if no_draws(space) is not None or not ranks or len(drawn) < FEWEST:
        return None
    places = drawn[0].num_places
    enough = max(FEWEST, min(2 * FEWEST, len(drawn) // 3))
    by_place = ((place, _ranks(space, drawn, place)) for place in range(places, 0, -1))
    place, losses = next((p for p in by_place if len(p[1]) >= enough), (0, []))
    if not losses:
        return None
    best, more = min(ranks), len(drawn)
    # before the last report, the gain there stands for the gain at the end; at the last, this is 0
    ahead = best - min(_ranks(space, searched, place))
    learns = SAMPLERS[space.search.sampler].uses_observations
    draws = more * _DRAWS_OF_LEARNING if learns else more
    low, median, high = (min(best, ahead + loss) for loss in best_after(losses, more, draws))
    if learns or SCHEDULERS[space.search.scheduler].compares:
        low = best - _MARGIN * (best - low)
    share = (best - low) / abs(best) if best else math.inf
    sign = space.objective.sign
    return Left(
        more, len(losses), place, places,
        best=sign * best, low=sign * low, median=sign * median, high=sign * high, share=share,
    )  # fmt: skip


def _drawn(
    space: SearchSpace, searched: Sequence[Trial], proposed: Sequence[Mapping[str, Value]]
) -> list[Trial]:
    """Return the trials that the sampler drew, and that finished, diverged or were found worse.

    Where the scheduler does not compare, a trial was stopped by a limit of the search, which says
    nothing of it.
    """
    compares = SCHEDULERS[space.search.scheduler].compares
    given = first_draws(space, proposed)
    return [
        t for t in searched
        if t.draw not in given and not t.is_untrained
        and (t.has_finished or t.has_diverged or (compares and (t.is_stopped or t.is_paused)))
    ]  # fmt: skip


def _ranks(space: SearchSpace, trials: Sequence[Trial], place: int | None = None) -> list[float]:
    """Return the losses at a report, by default the newest one, of the trials that have it."""
    metric = space.objective.metric
    values = (t.objective(metric) if place is None else t.value_at(metric, place) for t in trials)
    ranks = (math.inf if value is None else space.objective.rank(value) for value in values)
    return [rank for rank in ranks if math.isfinite(rank)]


def best_after(losses: Sequence[float], count: int, draws: float) -> tuple[float, float, float]:
    """Return quantiles of the lowest loss after more random draws.

    Args:
        losses: losses of the finished trials, at least two.
        count: number of trials that they were found with.
        draws: number of draws more.

    Returns:
        5 %, 50 % and 95 % quantile; none is above the lowest of `losses`.
    """
    ranked = np.sort(np.asarray(losses, dtype=np.float64))
    wanted = min(_TAIL_SHARE * len(ranked), _TAIL_ROOT * math.sqrt(len(ranked)))
    size = min(max(_FEWEST_IN_TAIL, round(wanted)), len(ranked) - 1)
    best, width = ranked[0], ranked[size] - ranked[0]
    if width <= 0:
        return (float(best),) * 3
    weights = _posterior((ranked[:size] - best) / width)
    # share of all draws that reach the tail: Beta, by three points with its mean and variance
    mean, total = size / (count + 1), count + 2
    deviation = math.sqrt(1.5 * mean * (1 - mean) / total)
    reached = 0.0
    for share in (mean - deviation, mean, mean + deviation):
        missed = draws * np.log1p(-np.clip(share, 0, 1) * _below() * (1 - 1e-12))
        reached += (1 - np.einsum("asgv,asg->v", np.exp(missed), weights)) / 3
    places = np.searchsorted(reached, _QUANTILES)  # the last place is the lowest loss so far
    low, median, high = best + width * np.append(_LOSSES, 0.0)[places]
    return float(low), float(median), float(high)


def _posterior(tail: Floats) -> Floats:
    """Return the posterior of α, σ and γ, (A, S, G), from the losses of the tail, (n,)."""
    scaled = (tail - _ALPHA[:, None, None]) / _SIGMA[:, None]  # (A, S, n)
    logs = np.stack(
        [
            (math.log(q) + _log_moment(scaled, q - 1) - np.log(_SIGMA)[:, None] - whole).sum(-1)
            for q, whole in zip(_HALF_GAMMA, _wholes(), strict=True)
        ],
        axis=-1,
    )
    logs += np.log(_SHARES)[:, None, None]
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


@cache
def _wholes() -> list[Floats]:
    """Return the logarithm of the weight below the threshold, (A, S, 1) for each γ."""
    scaled = (1 - _ALPHA[:, None, None]) / _SIGMA[:, None]
    return [_log_moment(scaled, q) for q in _HALF_GAMMA]


@cache
def _below() -> Floats:
    """Return the probability of a loss of the tail to lie below each of `_LOSSES`, (A, S, G, V)."""
    scaled = (_LOSSES - _ALPHA[:, None, None]) / _SIGMA[:, None]
    shares = [
        np.exp(_log_moment(scaled, q) - whole)
        for q, whole in zip(_HALF_GAMMA, _wholes(), strict=True)
    ]
    return np.asarray(np.minimum(np.stack(shares, axis=2), 1.0))


_END = 9.0  # beyond it a series replaces the table
_POINTS = np.linspace(-6.0, _END, 301)


def _log_moment(x: Floats, power: float) -> Floats:
    """Return log E[max(x + Z, 0)^power] for a normal Z; `power` is above −1."""
    far = np.maximum(x, _END)
    series = power * np.log(far) + np.log1p(power * (power - 1) / (2 * far**2))
    return np.asarray(np.where(x < _END, np.interp(x, _POINTS, _moments(power)), series))


@cache
def _moments(power: float) -> Floats:
    """Return the logarithms of the moment at `_POINTS`, by quadrature over the square root."""
    root, step = np.linspace(0, 4, 801, retstep=True)  # of x + Z
    density = np.exp(-((root**2 - _POINTS[:, None]) ** 2) / 2) / math.sqrt(2 * math.pi)
    values = 2 * root ** (2 * power + 1) * density
    integral = (values.sum(axis=1) - (values[:, 0] + values[:, -1]) / 2) * step
    return np.asarray(np.log(np.maximum(integral, 1e-30)))
