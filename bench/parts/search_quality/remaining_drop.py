"""Promotions by predicted losses: what would they be worth? For search_quality.py alone.

`asha` promotes by the losses at a rung. Here each loss is reduced first by what the trial is
expected to lose until the end: a Gaussian process over (configuration, report) models the rate

    ρ(x, t) = (log y_t − log y_{t+1}) / log((t + 1)/t),

which a power law has constant, of all pairs of successive reports so far. Without data all trials
lose equally much, so that the order is that of the losses. n = pairs, D = coordinates, in float64.

Kernel: σ²·Matérn-5/2(x, x′; ℓ_1 … ℓ_D)·RBF(t, t′) + σ_t²·RBF(t, t′), noise; the lengths and
variances are those of the largest posterior density, by L-BFGS from the centres of their priors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tuner.schedulers.asha import AshaPromote
from tuner.schedulers.rungs import RungResults
from tuner.schedulers.scheduler import Choice as Chosen
from tuner.schedulers.scheduler import Decision, Resume, SchedulerContext
from tuner.space.parameter import Choice, Value
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace

_STEPS = 10  # of L-BFGS
_FEWEST = 3  # pairs
_JITTER = 1e-6
_LENGTH, _NOISE = 0.8, 0.15  # centres of the priors, in units of the cube and of the data
_TIME, _SHARED, _SHARED_TIME = 0.7, 0.5, 0.4
_BOUNDS = (-5.0, 4.0)  # of the logarithms
_APART = 0.7  # distance of a category from none of the others


def coordinates(space: SearchSpace, draw: Mapping[str, Value]) -> list[float]:
    """Return a draw as a point: ranges and numbers in [0, 1], other choices one-hot."""
    point: list[float] = []
    for p in space.searched:
        d, value = p.distribution, draw[p.label]
        if not isinstance(d, Choice):
            point.append(p.place_of(value))
        elif all(isinstance(v, int | float) for v in d.values):
            point.append(sorted(map(float, d.values)).index(float(value)) / (len(d.values) - 1))
        else:
            point += [_APART if v == value else 0.0 for v in d.values]
    return point


class _Rates:
    """The process, fitted to pairs of reports.

    Args:
        points: x and t of each pair, (n, D + 1).
        rates: ρ, (n,).
    """

    def __init__(self, points: Tensor, rates: Tensor) -> None:
        self._points = points
        self._mean, self._scale = rates.mean(), rates.std(unbiased=False).clamp_min(1e-6)
        self._values = (rates - self._mean) / self._scale
        count = points.shape[1] - 1
        centre = [math.log(_LENGTH)] * count + [0.0, math.log(_NOISE)]
        centre += [math.log(v) for v in (_TIME, _SHARED, _SHARED_TIME)]
        self._centre = torch.tensor(centre, dtype=torch.float64)
        self._width = torch.tensor([1.0] * (count + 2) + [0.5] * 3, dtype=torch.float64)
        self._theta = self._fit()
        self._factor = self._cholesky(self._theta)
        self._weights = torch.cholesky_solve(self._values[:, None], self._factor)

    def mean(self, points: Tensor) -> Tensor:
        """Return the expected rates at points, (m, D + 1) → (m,)."""
        across = self._kernel(self._theta, self._points, points)
        return (across.T @ self._weights)[:, 0] * self._scale + self._mean

    def _kernel(self, theta: Tensor, a: Tensor, b: Tensor) -> Tensor:
        count = a.shape[1] - 1
        lengths, (variance, _, time, shared, shared_time) = theta[:count].exp(), theta[count:].exp()
        between = a[:, None, :count] / lengths - b[None, :, :count] / lengths
        far = math.sqrt(5) * (between.square().sum(-1) + 1e-12).sqrt()
        apart = a[:, None, count] - b[None, :, count]
        own = variance**2 * (1 + far + far.square() / 3) * (-far).exp()
        return (
            own * (-0.5 * (apart / time) ** 2).exp()
            + shared**2 * (-0.5 * (apart / shared_time) ** 2).exp()
        )

    def _cholesky(self, theta: Tensor) -> Tensor:
        noise = theta[self._points.shape[1]].exp() ** 2 + _JITTER
        observed = self._kernel(theta, self._points, self._points)
        return torch.linalg.cholesky(observed + noise * torch.eye(len(observed)).double())

    def _loss(self, theta: Tensor) -> Tensor:
        """Return the negative logarithm of the posterior density, up to a constant."""
        factor = self._cholesky(theta)
        half = torch.linalg.solve_triangular(factor, self._values[:, None], upper=False)
        prior = ((theta - self._centre) / self._width).square().sum()
        return 0.5 * half.square().sum() + factor.diagonal().log().sum() + 0.5 * prior

    def _fit(self) -> Tensor:
        theta = self._centre.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([theta], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss(theta)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        try:
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        except torch.linalg.LinAlgError:
            return self._centre
        found = theta.detach().clamp(*_BOUNDS)
        return found if bool(torch.isfinite(found).all()) else self._centre


class AshaByDrop(AshaPromote):
    """`asha`, promoting, by predicted losses: each report at a rung predicts all of them anew.

    Args:
        context: facts of the search; losses are positive.
    """

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self._space, self._report_tokens = context.space, context.report_tokens
        self._reports = round(context.budget_tokens / context.report_tokens)
        self._points: dict[int, list[float]] = {}
        self._curves: dict[int, dict[int, float]] = {}  # trial → report → logarithm of the loss
        self._paused: dict[int, int] = {}  # trial → index of its rung

    def add(self, number: int, draw: Mapping[str, Value]) -> None:
        """Record a new trial."""
        super().add(number, draw)
        self._points[number], self._curves[number] = coordinates(self._space, draw), {}

    def choose(self, *, may_start: bool) -> Chosen | None:
        """Choose as `asha`."""
        choice = super().choose(may_start=may_start)
        if isinstance(choice, Resume):
            del self._paused[choice.number]
        return choice

    def judge(self, number: int, tokens: int, value: float) -> Decision:
        """Pause a trial at a rung, unless it is promoted at once."""
        self._curves[number][self._report_at(tokens)] = math.log(value)
        reached = self._ladder.climb(number, tokens, value)
        if reached is None:
            return Decision.CONTINUE
        index = self._ladder.rungs.index(reached)
        self._rank_again()
        rung = self._ladder.rungs[index]
        if number in self._never_stopped or rung.rank(number) < len(rung) // self._eta:
            return Decision.CONTINUE
        rung.pause(number)
        self._paused[number] = index
        return Decision.PAUSE

    def end(self, number: int, tokens: int, value: float | None) -> None:
        """Record the last value."""
        if value is not None:
            self._curves[number][self._report_at(tokens)] = math.log(value)
        self._paused.pop(number, None)
        super().end(number, tokens, value)

    def _report_at(self, tokens: int) -> int:
        return round(tokens / self._report_tokens)

    def _rank_again(self) -> None:
        """Rank the trials of all rungs by their predicted losses at the end."""
        rates = self._fitted()
        for index, (rung, report) in enumerate(
            zip(self._ladder.rungs, self._rung_reports(), strict=True)
        ):
            numbers = sorted(n for n in rung.ranking if report in self._curves[n])
            again = RungResults()
            for number, loss in zip(numbers, self._predicted(rates, numbers, report), strict=True):
                again.record(number, loss)
                if self._paused.get(number) == index:
                    again.pause(number)
            self._ladder.rungs[index] = again

    def _rung_reports(self) -> list[int]:
        tokens = rungs(self._report_tokens, self._eta, self._report_tokens * self._reports)
        return [self._report_at(t) for t in tokens]

    def _fitted(self) -> _Rates | None:
        """Return the process of all pairs so far; None with too few."""
        points, rates = [], []
        for number, curve in self._curves.items():
            for at in sorted(curve):
                if at + 1 in curve:
                    points.append([*self._points[number], at / self._reports])
                    rates.append((curve[at] - curve[at + 1]) / math.log((at + 1) / at))
        if len(rates) < _FEWEST:
            return None
        return _Rates(torch.tensor(points).double(), torch.tensor(rates).double())

    def _predicted(self, rates: _Rates | None, numbers: Sequence[int], report: int) -> list[float]:
        """Return the logarithms of the losses at the end, from those at a report."""
        left = range(report, self._reports)
        losses = [self._curves[number][report] for number in numbers]
        if rates is None or not numbers:
            return losses
        points = [[*self._points[n], at / self._reports] for n in numbers for at in left]
        found = rates.mean(torch.tensor(points).double()).reshape(len(numbers), len(left))
        steps = torch.tensor([math.log((at + 1) / at) for at in left]).double()
        drops: list[float] = (found @ steps).tolist()
        return [loss - drop for loss, drop in zip(losses, drops, strict=True)]
