"""Does the best learning rate stay? Parabolas of sweeps, their minima, and a verdict.

A parabola in log2 α with an offset for each seed is fitted to the losses of a size; its minimum is
the best rate. Uncertainty: draws of the coefficients from their t distribution (least squares).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tuner.transfer.sweep import Kind, Sweep

Floats = npt.NDArray[np.floating]
Word = Literal["verified", "moves", "not transferable"]

TOLERATED = 0.5  # octaves by which a verified optimum may move
_LOSS = 0.005  # share of the loss that may be given up
_MOST = 2.5  # octaves: half of the interval of a move that says nothing any more
_NEAR = 2.0  # octaves around the lowest loss: farther away, loss is no parabola
_DRAWS, _QUANTILES = 4000, (0.05, 0.5, 0.95)
_SURE = 0.9  # share of the draws that have a minimum


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Estimate:
        """Return a value with the quantiles of draws of it."""
        low, _, high = np.quantile(draws, _QUANTILES)
        return cls(value, min(value, float(low)), max(value, float(high)))

    def text(self, digits: int = 2, sign: str = "+") -> str:
        """Return `+0.12 (-0.30 … +0.51)`."""
        low, high = (f"{end:{sign}.{digits}f}" for end in (self.low, self.high))
        return f"{self.value:{sign}.{digits}f} ({low} … {high})"


@dataclass(frozen=True)
class Optimum:
    """Minimum of a sweep.

    Attributes:
        octaves: log2 of the factor on the winner's rate at which the loss is lowest.
        loss: loss there, mean over the seeds.
        curvature: loss that an octave away from the minimum costs.
        draws: draws of `octaves`, (R,).
        curvature_draws: draws of `curvature`, (R,).
    """

    octaves: float
    loss: float
    curvature: float
    draws: Floats
    curvature_draws: Floats


@dataclass(frozen=True)
class Move:
    """How the optimum of one kind moves over the sizes.

    Attributes:
        kind: scaled or standard.
        optima: optimum of each sweep; None where no minimum is found.
        octaves: from the smallest to the largest size; None if one of them has no optimum.
        exponent: of the width (or depth) in the best rate, by a line through all optima.
        given_up: loss at the largest size for the smallest one's best rate, as a share of the loss.
    """

    kind: Kind
    optima: tuple[Optimum | None, ...]
    octaves: Estimate | None = None
    exponent: Estimate | None = None
    given_up: Estimate | None = None


@dataclass(frozen=True)
class TransferVerdict:
    """The answer.

    Attributes:
        word: verified, moves or not transferable.
        reason: why it is not transferable, or empty.
        move: move of the scaled kind.
        control: move of the standard kind.
        factor: factor on the winner's learning rates at the target; 1 if verified.
    """

    word: Word
    reason: str
    move: Move
    control: Move
    factor: float

    def sentence(self, doublings: float) -> str:
        """Return the answer as a sentence.

        Args:
            doublings: octaves of width (or depth) between the smallest and the largest size.
        """
        if self.word == "not transferable":
            return f"Not transferable: {self.reason}."
        octaves, given_up, exponent = self.move.octaves, self.move.given_up, self.move.exponent
        assert octaves is not None
        assert given_up is not None
        assert exponent is not None
        moved = (
            f"the best learning rate moves by {octaves.text()} octaves over {2**doublings:.3g} "
            f"times the size, which gives up {100 * given_up.value:.2f} % of the loss "
            f"({100 * given_up.low:.2f} … {100 * given_up.high:.2f})"
        )
        if self.word == "verified":
            return f"Verified: {moved}."
        return (
            f"Moves: {moved}; corrected exponent of the size {exponent.text()}: multiply the "
            f"learning rates by {self.factor:.3g} at the target."
        )


def optimum(sweep: Sweep, seed: int = 0) -> Optimum | None:
    """Return the minimum of a sweep; None if its losses do not show one.

    Args:
        sweep: losses by rate; rates at which a trial diverged are left out.
        seed: seed of the draws.
    """
    rates = {x: losses for x, losses in sweep.losses.items() if all(map(math.isfinite, losses))}
    if len(rates) < 4:
        return None
    means = {x: sum(losses) / len(losses) for x, losses in rates.items()}
    best = min(means, key=lambda x: means[x])
    if best in (min(sweep.losses), max(sweep.losses)):
        return None  # it lies outside
    near = sorted((x for x in rates if abs(x - best) <= _NEAR), key=lambda x: abs(x - best))
    if len(near) < 4:
        near = sorted(rates, key=lambda x: abs(x - best))[:4]
    seeds = len(rates[best])
    x = np.repeat(np.array(near), seeds) - best
    y = np.array([loss for rate in near for loss in rates[rate]])
    offsets = np.tile(np.eye(seeds), (len(near), 1))  # a level for each seed
    design = np.column_stack([x, x * x, offsets])
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    freedom = len(y) - design.shape[1]
    residual = y - design @ coefficients
    variance = float(residual @ residual) / freedom if freedom > 0 else 0.0
    covariance = variance * np.linalg.inv(design.T @ design)
    rng = np.random.default_rng(seed)
    normal = rng.multivariate_normal(np.zeros(len(coefficients)), covariance, size=_DRAWS)
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(_DRAWS, 1))) if freedom > 0 else 1.0
    drawn = coefficients + normal * scale
    has_minimum = drawn[:, 1] > 0
    slope, curvature = coefficients[:2]
    if curvature <= 0 or has_minimum.mean() < _SURE:
        return None
    kept = drawn[has_minimum]
    octaves = best - slope / (2 * curvature)
    level = float(coefficients[2:].mean() - slope**2 / (4 * curvature))
    return Optimum(
        float(octaves), level, float(curvature), best - kept[:, 0] / (2 * kept[:, 1]), kept[:, 1]
    )


def move_of(sweeps: Sequence[Sweep]) -> Move:
    """Return how the optimum moves over the sweeps of one kind, smallest size first."""
    optima = tuple(optimum(sweep, seed) for seed, sweep in enumerate(sweeps))
    kind = sweeps[0].kind
    if any(each is None for each in optima):
        return Move(kind, optima)
    known = [each for each in optima if each is not None]
    count = min(len(each.draws) for each in known)
    drawn = np.stack([each.draws[:count] for each in known])  # (sizes, R)
    values = np.array([each.octaves for each in known])
    sizes = np.array([sweep.size.octaves for sweep in sweeps])
    line = np.linalg.pinv(np.column_stack([np.ones_like(sizes), sizes]))[1]
    shift, shifts = values[-1] - values[0], drawn[-1] - drawn[0]
    last = known[-1]
    cost = last.curvature * shift**2 / last.loss
    costs = last.curvature_draws[:count] * shifts**2 / last.loss
    return Move(
        kind, optima, Estimate.of(float(shift), shifts),
        Estimate.of(float(line @ values), line @ drawn), Estimate.of(float(cost), costs),
    )  # fmt: skip


def judge(sweeps: Sequence[Sweep], doublings: float) -> TransferVerdict:
    """Return the verdict on sweeps of both kinds.

    Args:
        sweeps: sweeps of all sizes, smallest first, of both kinds.
        doublings: octaves of width (or depth) between the proxy and the target.
    """
    scaled = [sweep for sweep in sweeps if sweep.kind == "scaled"]
    move = move_of(scaled)
    control = move_of([sweep for sweep in sweeps if sweep.kind == "standard"])

    def verdict(word: Word, reason: str = "", factor: float = 1.0) -> TransferVerdict:
        return TransferVerdict(word, reason, move, control, factor)

    for sweep, each in zip(scaled, move.optima, strict=True):
        if each is None:
            low, high = (2.0**end for end in (min(sweep.losses), max(sweep.losses)))
            reason = (
                f"the losses of {sweep.size.text} show no lowest point between {low:g} and "
                f"{high:g} times the winner's learning rate; train longer, or with more --seeds"
            )
            return verdict("not transferable", reason)
    octaves, given_up, exponent = move.octaves, move.given_up, move.exponent
    assert octaves is not None
    assert given_up is not None
    assert exponent is not None
    half = (octaves.high - octaves.low) / 2
    if half > _MOST:
        reason = (
            f"the best rates are known to ±{half:.1f} octaves only; train longer, or with more "
            f"--seeds"
        )
        return verdict("not transferable", reason)
    is_still = abs(octaves.value) <= TOLERATED or octaves.low <= 0 <= octaves.high
    if is_still and given_up.value <= _LOSS:
        return verdict("verified")
    if not _is_line(scaled, move):
        reason = "the best rates of the sizes do not lie on a line, so that none can be continued"
        return verdict("not transferable", reason)
    return verdict("moves", factor=float(2 ** (exponent.value * doublings)))


def _is_line(sweeps: Sequence[Sweep], move: Move) -> bool:
    """Return whether the optimum of each middle size lies near the line through the ends."""
    known = [each for each in move.optima if each is not None]
    first, last = known[0], known[-1]
    span = sweeps[-1].size.octaves
    for sweep, each in zip(sweeps[1:-1], known[1:-1], strict=True):
        share = sweep.size.octaves / span
        expected = first.octaves + share * (last.octaves - first.octaves)
        spread = float(np.quantile(np.abs(each.draws - each.octaves), 0.9))
        if abs(each.octaves - expected) > max(TOLERATED, spread):
            return False
    return True
