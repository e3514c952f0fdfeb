"""Does the best learning rate stay? Bowls of sweeps, their lowest points, and a verdict.

A bowl in log2 α with a level for each seed is fitted to the losses of each size; its lowest point
is the best rate. All sizes have the shape of the bowl and the noise in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.results.bowls import Bowl, Estimate, Floats, Ints, fit_bowls, height, near
from tuner.texts.formatting import counted
from tuner.transfer.sweep import Kind, Sweep

Word = Literal["verified", "moves", "not shown to move", "not transferable"]

TOLERATED = 0.5  # octaves by which a verified optimum may move
_LOSS = 0.005  # share of the loss that may be given up
_DRAWS = 4000
_SURE = 0.7  # share of the draws whose lowest point lies between the rates that were tried
_FEWEST = 4  # rates of a sweep


@dataclass(frozen=True)
class Optimum:
    """Lowest point of a sweep.

    Attributes:
        octaves: log2 of the factor on the winner's rate at which the loss is lowest.
        loss: loss there, mean over the seeds.
        cost: loss of an octave off the lowest point, the mean of both sides.
        draws: draws of `octaves`, (R,).
        cost_draws: draws of `cost`, (R,).
        shapes: shapes of the bowl, of all draws, (R,).
    """

    octaves: float
    loss: float
    cost: float
    draws: Floats
    cost_draws: Floats
    shapes: Ints


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

    @property
    def estimates(self) -> tuple[Estimate, Estimate, Estimate]:
        """Octaves, exponent and what is given up, where all sweeps have an optimum."""
        assert self.octaves is not None and self.exponent is not None and self.given_up is not None
        return self.octaves, self.exponent, self.given_up


@dataclass(frozen=True)
class TransferVerdict:
    """The answer.

    Attributes:
        word: verified, moves, not shown to move, or not transferable.
        reason: why it is not transferable, what would show whether it moves, or empty.
        move: move of the scaled kind.
        control: move of the standard kind.
        factor: factor on the winner's learning rates at the target; 1 unless it moves.
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
        octaves, exponent, given_up = self.move.estimates
        moved = (
            f"the best learning rate moves by {octaves.text()} octaves over {2**doublings:.3g} "
            f"times the size, which gives up {100 * given_up.value:.2f} % of the loss "
            f"({100 * given_up.low:.2f} … {100 * given_up.high:.2f})"
        )
        if self.word == "verified":
            return f"Verified: {moved}."
        if self.word == "not shown to move":
            return f"Not shown to move: {moved}; {self.reason}."
        return (
            f"Moves: {moved}; corrected exponent of the size {exponent.text()}: multiply the "
            f"learning rates by {self.factor:.3g} at the target."
        )


def optima_of(sweeps: Sequence[Sweep]) -> tuple[Optimum | None, ...]:
    """Return the lowest point of each sweep; None where the losses do not show one.

    Args:
        sweeps: losses by rate, of one kind; rates at which a trial diverged are left out.
    """
    bowls = [_bowl(sweep) for sweep in sweeps]
    known = [bowl for bowl in bowls if bowl is not None]
    if not known:
        return tuple(None for _ in sweeps)
    fits = fit_bowls(known, _DRAWS)
    found: list[Optimum | None] = []
    number = 0
    for sweep, bowl in zip(sweeps, bowls, strict=True):
        if bowl is None:
            found.append(None)
            continue
        octaves, costs = fits.places[number][:, 0], fits.costs[:, number]
        level = float(fits.others[number][0].mean())
        number += 1
        is_inside = (octaves > min(sweep.losses)) & (octaves < max(sweep.losses))
        found.append(
            Optimum(float(octaves[0]), level, float(costs[0]), octaves[1:], costs[1:],
                    fits.shapes[1:])
            if is_inside[1:].mean() >= _SURE else None
        )  # fmt: skip
    return tuple(found)


def _bowl(sweep: Sweep) -> Bowl | None:
    """Return the losses near the lowest one; None if they are too few."""
    finite = {x: losses for x, losses in sweep.losses.items() if all(map(math.isfinite, losses))}
    if len(finite) < _FEWEST:
        return None
    rates = np.array(list(finite))
    is_near = near(rates[:, None], np.array([np.mean(losses) for losses in finite.values()]))
    if is_near.sum() < _FEWEST:  # the bowl is steep
        best = min(finite, key=lambda x: np.mean(finite[x]))
        is_near = np.argsort(np.argsort(np.abs(rates - best), kind="stable")) < _FEWEST
    x = rates[is_near]
    losses = np.array([finite[rate] for rate in x])  # (rates, seeds)
    levels = np.tile(np.eye(losses.shape[1]), (len(x), 1))
    return Bowl(np.repeat(x, losses.shape[1]), losses.ravel(), levels)


def move_of(sweeps: Sequence[Sweep]) -> Move:
    """Return how the optimum moves over the sweeps of one kind, smallest size first."""
    optima, kind = optima_of(sweeps), sweeps[0].kind
    known = [each for each in optima if each is not None]
    if len(known) < len(optima):
        return Move(kind, optima)
    drawn = np.stack([each.draws for each in known])  # (sizes, R)
    values = np.array([each.octaves for each in known])
    sizes = np.array([sweep.size.octaves for sweep in sweeps])
    line = np.linalg.pinv(np.column_stack([np.ones_like(sizes), sizes]))[1]
    shift, shifts = values[-1] - values[0], drawn[-1] - drawn[0]
    last = known[-1]
    costs = last.cost_draws * height(-shifts, last.shapes) / last.loss
    cost = last.cost * float(height(np.array(-shift), last.shapes).mean()) / last.loss
    return Move(
        kind, optima, Estimate.of(float(shift), shifts),
        Estimate.of(float(line @ values), line @ drawn), Estimate.of(cost, costs),
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
    octaves, exponent, given_up = move.estimates
    is_shown = not octaves.low <= 0 <= octaves.high
    is_still = -TOLERATED <= octaves.low and octaves.high <= TOLERATED
    # what a move costs here is less than what it costs at the target: known ones are continued
    if is_still or (not is_shown and given_up.high <= _LOSS):
        return verdict("verified")
    if not is_shown:
        seeds = max(len(losses) for losses in scaled[0].losses.values())
        more = counted(_more_seeds(octaves, seeds), "more seed")
        return verdict("not shown to move", f"about {more} would show whether it does")
    if not _is_line(scaled, move):
        reason = "the best rates of the sizes do not lie on a line, so that none can be continued"
        return verdict("not transferable", reason)
    return verdict("moves", factor=float(2 ** (exponent.value * doublings)))


def _more_seeds(octaves: Estimate, seeds: int) -> int:
    """Return how many seeds make an interval so narrow that it is within ±½ octave, or without 0.

    The move stays where it is; the interval shrinks with the root of the number of seeds.
    """
    half, move = (octaves.high - octaves.low) / 2, abs(octaves.value)
    enough = max(TOLERATED - move, move)
    return max(1, math.ceil(seeds * ((half / enough) ** 2 - 1)))


def _is_line(sweeps: Sequence[Sweep], move: Move) -> bool:
    """Return whether each middle optimum may lie within half an octave of the line of the ends."""
    known = [each for each in move.optima if each is not None]
    first, last = known[0], known[-1]
    for sweep, each in zip(sweeps[1:-1], known[1:-1], strict=True):
        share = sweep.size.octaves / sweeps[-1].size.octaves
        off = Estimate.of(
            each.octaves - (1 - share) * first.octaves - share * last.octaves,
            each.draws - (1 - share) * first.draws - share * last.draws,
        )
        if off.low > TOLERATED or off.high < -TOLERATED:
            return False
    return True
