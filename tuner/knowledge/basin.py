"""The basin model: one bowl of loss over the settings of a trial, for all sizes, budgets and texts.

A *cell* is the trials of one text, model, budget and evaluation; they differ in their settings
alone. The loss of a trial of cell c is

    log L = u_c + r(Q),   Q = exp(k·φ_c)·Σ_j h_j·w_j²,   r = s·(√(1 + 2Q/s) − 1)

with φ = (log N, log D) from `CENTRE`, N the weights of the blocks, D the training tokens. The
bowl is round at the bottom and straight far away (pseudo-Huber), as losses are. Its axes lean: with
v the distance of the settings from the centre, the learning rate counts from the rate that is best
*at the other settings*, w_rate = a(v_rate + Σ_k ρ_k·v_k), and so does the batch size. a(t) = t·(1 +
δ·tanh t) makes one side steeper. The centre moves with size and budget by a power law, and each
cell has a centre of its own around it, more alike for cells of one text or of near sizes:

    centre_cj = A_j·(1, φ_c, squares of φ_c) + e_cj,   e_j ~ N(0, τ_j²·K)

So levels are free, the bowl is pooled, and the centres are pooled partially. Everything has a prior
(`settings.py`). The squares are small: power laws bend (arXiv:2606.29158). For rate and batch the
prior is a published law (`laws.py`), narrow at the sizes that the law was fitted to, and wide
elsewhere. The cell that is asked for has no trials of its own, or some; its centre is a parameter
like the others.

n = trials, D = settings, C = cells, the asked one last, P = parameters, S = draws of the posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tuner.knowledge.evidence import Evidence
from tuner.knowledge.laplace import Normal, fit
from tuner.knowledge.laws import LAWS
from tuner.knowledge.settings import CENTRE, NAMES, SETTINGS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_D, _TERMS = len(SETTINGS), 6
_BEND = (
    0.015  # deviation of the squares, if a law moves the centre: 0.35 at a hundred times the size
)
_STRAIGHT_BEND = 0.001  # of centres that hardly move
_LAW = 0.2  # deviation of a published law, in the range that it was fitted to
# settings whose distance counts from the best value at the others
_LEANS = {
    "max_learning_rate": NAMES[1:],
    "batch_size": ("beta2", "beta1", "weight_decay"),
}
_PAIRS = [(NAMES.index(a), NAMES.index(b)) for a, others in _LEANS.items() for b in others]
# ρ: mean and deviation; the best rate grows with the root of the batch, and has known signs no more
_LEAN, _WARMUP_LEAN, _BATCH_LEAN = (0.0, 0.3), (0.0, 3.0), (-0.4, 0.3)
_ASYMMETRY, _STRAIGHT, _GROWTH = (0.2, 0.3), (math.log(0.2), 0.7), 0.1  # δ, log s, k
_MOVING = [j for j, setting in enumerate(SETTINGS) if setting.spread >= 0.25]  # have an e
_ALIKE_TEXT, _ALIKE_SIZE, _OWN = 0.35, 0.35, 0.3  # shares of the variance of e
_NEAR_SIZE = 2.0  # log units of weights or tokens over which cells are alike
STEEP = 0.3  # regrets above it are no evidence: training nearly diverged
_SEEDS, _SHAPE = 0.008, 0.25  # noise of a log loss: of the seed, and a share of its regret
_PASSES = 3  # the regret is first over the lowest loss of the cell, then over the fitted level


@dataclass(frozen=True)
class TargetCell:
    """The cell that is asked for.

    Attributes:
        weights: N, weights of the blocks.
        tokens: D, training tokens.
        text: text and tokenizer, as in the evidence; "" for one that no evidence has.
        parameters: all weights, those of embeddings and head included; 0 if they are not known.
    """

    weights: float
    tokens: float
    text: str = ""
    parameters: float = 0

    @property
    def size(self) -> Floats:
        """Logs of the weights of the blocks, of the tokens and of all weights, (3,)."""
        return np.log([self.weights, self.tokens, self.parameters or self.weights])


@dataclass(frozen=True)
class _Layout:
    """Slices of the parameters (P,) of C cells."""

    cells: int

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Name → slice."""
        sizes = {
            "laws": _D * _TERMS,
            "curvatures": _D,
            "leans": len(_PAIRS),
            "shape": 2,  # δ, log s
            "growth": 2,
            "own": self.cells * len(_MOVING),
            "levels": self.cells,
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        starts = [0, *ends]
        return {name: slice(a, b) for name, a, b in zip(sizes, starts, ends, strict=False)}

    @property
    def size(self) -> int:
        """P."""
        return int(self.slices["levels"].stop)

    def own(self, parameters: Floats) -> Floats:
        """Return the centres of cells from their power law, (C, D)."""
        out = np.zeros((self.cells, _D))
        out[:, _MOVING] = parameters[self.slices["own"]].reshape(self.cells, -1)
        return out


@dataclass(frozen=True)
class Bowls:
    """The target's bowl in S draws of the posterior; the first is the most probable one.

    Attributes:
        centres: best places of the settings, (S, D).
        curvatures: h, (S, D).
        leans: ρ, (S, pairs).
        asymmetry: δ, (S,).
        straight: s, (S,).
        growth: exp(k·φ) at the target, (S,).
    """

    centres: Floats
    curvatures: Floats
    leans: Floats
    asymmetry: Floats
    straight: Floats
    growth: Floats

    def regrets(self, points: Floats) -> Floats:
        """Return the log of the loss over the lowest, (S, m), of points (m, D)."""
        t = _leaned(points - self.centres[:, None], self.leans[:, None])
        t[..., 0] *= 1 + self.asymmetry[:, None] * np.tanh(t[..., 0])
        q = self.growth[:, None] * np.einsum("smd,sd->sm", t**2, self.curvatures)
        s = self.straight[:, None]
        return np.asarray(s * (np.sqrt(1 + 2 * q / s) - 1))


def _leaned(v: Floats, leans: Floats) -> Floats:
    """Return the distances (…, D), those of rate and batch from the best at the others."""
    t = v.copy()
    for number, (a, b) in enumerate(_PAIRS):
        t[..., a] += leans[..., number] * v[..., b]
    return t


class BasinModel:
    """The fitted model, for one target.

    Args:
        evidence: trials; their cells need not have the target's.
        target: the cell that is asked for.

    Attributes:
        target: the cell that is asked for.
        cells: names of the cells with evidence.
    """

    def __init__(self, evidence: Evidence, target: TargetCell) -> None:
        self.target = target
        self._use(evidence)
        self._layout = _Layout(len(self.cells) + 1)
        prior, regrets = self._prior(), self._regrets
        self.posterior = prior
        for _ in range(_PASSES):
            noise = np.hypot(_SEEDS, _SHAPE * np.maximum(regrets, 0))
            start = self.posterior.mean
            self.posterior = fit(self._model, self._losses, noise, prior, start)
            levels = self.posterior.mean[self._layout.slices["levels"]]
            regrets = self._losses - levels[self._index]

    def _use(self, evidence: Evidence) -> None:
        cells, index = np.unique(evidence.cells, return_inverse=True)
        lowest = np.full(len(cells), np.inf)
        np.minimum.at(lowest, index, evidence.losses)
        with np.errstate(invalid="ignore"):
            regrets = np.log(evidence.losses / lowest[index])
        used = regrets < STEEP  # neither diverged (inf) nor in a cell where all did (nan)
        kept, self._index = np.unique(index[used], return_inverse=True)
        first = [int(np.argmax(index == number)) for number in kept]
        self.cells: list[str] = cells[kept].tolist()
        self._points = evidence.points[used]
        self._losses, self._regrets = np.log(evidence.losses[used]), regrets[used]
        self._lowest = np.log(lowest[kept])
        sizes = [*evidence.sizes[first], self.target.size]
        self._texts = [*evidence.texts[first].tolist(), self.target.text]
        self._sizes = np.array(sizes)
        self._phi = _phi(self._sizes[:, :2])

    # priors ---------------------------------------------------------------------------------

    def _prior(self) -> Normal:
        at, size = self._layout.slices, self._layout.size
        mean, deviation = np.zeros(size), np.ones(size)

        def put(name: str, means: npt.ArrayLike, deviations: npt.ArrayLike) -> None:
            mean[at[name]], deviation[at[name]] = means, deviations

        put("laws", *_power_laws())
        curvatures = np.array([setting.curvature for setting in SETTINGS])
        put("curvatures", np.log(curvatures[:, 0]), curvatures[:, 1])
        leans = np.array([_lean(a, b) for a, b in _PAIRS])
        put("leans", leans[:, 0], leans[:, 1])
        put("shape", *np.transpose([_ASYMMETRY, _STRAIGHT]))
        put("growth", 0.0, _GROWTH)
        put("levels", [*self._lowest, 0.0], STEEP)
        precision = np.diag(deviation**-2.0)
        for law in LAWS:
            row = at["laws"].start + NAMES.index(law.setting) * _TERMS
            ends = _phi(np.log([[n, d] for n in law.weights for d in law.tokens]))
            precision[row : row + _TERMS, row : row + _TERMS] += ends.T @ ends / _LAW**2
        precision[at["own"], at["own"]] = self._own_precision()
        return Normal(mean, precision)

    def _own_precision(self) -> Floats:
        """Return the inverse covariance of e, (C·moving, C·moving)."""
        between = self._phi[:, None, 1:3] - self._phi[None, :, 1:3]
        near = np.exp(-0.5 * (between**2).sum(-1) / _NEAR_SIZE**2)
        texts = np.array(self._texts)
        equal = (texts[:, None] == texts[None]) & (texts != "")[:, None]
        alike = _ALIKE_TEXT * np.where(equal, near, 0) + _ALIKE_SIZE * near
        # the nugget also keeps the matrix invertible
        inverse = np.linalg.inv(
            alike + (_OWN + _ALIKE_TEXT * ~equal.diagonal()) * np.eye(len(texts))
        )
        spreads = np.array([SETTINGS[j].spread for j in _MOVING])
        return np.asarray(np.kron(inverse, np.diag(spreads**-2.0)))

    # the model ------------------------------------------------------------------------------

    def _model(self, p: Floats) -> tuple[Floats, Floats]:
        """Return the log losses (n,) and their derivatives (n, P)."""
        at, cell = self._layout.slices, self._index
        phi = self._phi[cell]
        h, leans, (asymmetry, log_s) = np.exp(p[at["curvatures"]]), p[at["leans"]], p[at["shape"]]
        v = self._points - self._centres(p)[cell]
        t = _leaned(v, leans)
        rate = t[:, 0].copy()
        bend = np.tanh(rate)
        w = t
        w[:, 0] = rate * (1 + asymmetry * bend)
        growth = np.exp(phi[:, 1:3] @ p[at["growth"]])
        q = growth * (w**2 @ h)
        s = math.exp(log_s)
        root = np.sqrt(1 + 2 * q / s)
        outer = growth / root  # ∂r/∂Q times the growth
        by_t = 2 * outer[:, None] * w * h
        by_asymmetry = by_t[:, 0] * rate * bend
        by_t[:, 0] *= 1 + asymmetry * (bend + rate * (1 - bend**2))
        by_v = by_t.copy()
        jacobian = np.zeros((len(v), len(p)))
        for number, (a, b) in enumerate(_PAIRS):
            by_v[:, b] += leans[number] * by_t[:, a]
            jacobian[:, at["leans"].start + number] = by_t[:, a] * v[:, b]
        jacobian[:, at["laws"]] = -(by_v[:, :, None] * phi[:, None, :]).reshape(len(v), _TERMS * _D)
        jacobian[:, at["curvatures"]] = outer[:, None] * w**2 * h
        jacobian[:, at["shape"]] = np.column_stack([by_asymmetry, s * (root - 1) - q / root])
        jacobian[:, at["growth"]] = (q / root)[:, None] * phi[:, 1:3]
        rows = np.arange(len(v))
        for number, j in enumerate(_MOVING):
            jacobian[rows, at["own"].start + cell * len(_MOVING) + number] = -by_v[:, j]
        jacobian[rows, at["levels"].start + cell] = 1
        return p[at["levels"]][cell] + s * (root - 1), jacobian

    def _centres(self, p: Floats) -> Floats:
        """Return the centre of each cell, (C, D)."""
        return self._phi @ p[self._layout.slices["laws"]].reshape(_D, _TERMS).T + self._layout.own(
            p
        )

    # answers --------------------------------------------------------------------------------

    def bowls(self, count: int, seed: int) -> Bowls:
        """Return the target's bowl in draws of the posterior."""
        at, draws = self._layout.slices, self.posterior.draws(count, seed)
        return Bowls(
            np.array([self._centres(p)[-1] for p in draws]),
            np.exp(draws[:, at["curvatures"]]),
            draws[:, at["leans"]],
            draws[:, at["shape"]][:, 0],
            np.exp(draws[:, at["shape"]][:, 1]),
            np.exp(draws[:, at["growth"]] @ self._phi[-1, 1:3]),
        )

    def lowest(self) -> tuple[Floats, Floats, Floats, list[str]]:
        """Return the lowest log loss of each cell with evidence.

        Returns:
            The losses and their deviations, (C − 1,), logs of all weights and of tokens, with shape
            (C − 1, 2), and the texts.
        """
        levels = self._layout.slices["levels"]
        covariance = np.linalg.inv(self.posterior.precision)
        deviations = np.sqrt(covariance.diagonal()[levels])
        sizes = self._sizes[:-1, [2, 1]]
        return self.posterior.mean[levels][:-1], deviations[:-1], sizes, self._texts[:-1]


def _phi(sizes: Floats) -> Floats:
    """Return 1, the log sizes from the centre, and their squares and product, (m, 6)."""
    n, d = (sizes - CENTRE).T
    return np.column_stack([np.ones(len(sizes)), n, d, n**2, d**2, n * d])


def _power_laws() -> tuple[Floats, Floats]:
    """Return the coefficients of all centres, and their deviations, each (D·6,)."""
    bends = [0.0] * (_TERMS - 3)
    means = np.array([[s.place(s.level[0]), *(m for m, _ in s.slopes), *bends] for s in SETTINGS])
    for law in LAWS:
        means[NAMES.index(law.setting), :3] = [law.log_value(*CENTRE), *law.exponents]
    lawful = {law.setting for law in LAWS}
    deviations = np.array(
        [
            [
                s.level[1],
                *(d for _, d in s.slopes),
                *[_BEND if s.name in lawful else _STRAIGHT_BEND] * (_TERMS - 3),
            ]
            for s in SETTINGS
        ]
    )
    return means.ravel(), deviations.ravel()


def _lean(a: int, b: int) -> tuple[float, float]:
    if (NAMES[a], NAMES[b]) == ("max_learning_rate", "batch_size"):
        return _BATCH_LEAN
    return _WARMUP_LEAN if NAMES[b] == "warmup_steps" else _LEAN
