"""How often the interval of what is left holds the truth (`tuner.conductor.left`).

A search of n trials has an interval of the best loss after n more. Here the n more are known: the
rest of a random order of a table's configurations, the rest of the draws of a made-up bowl, or the
same search replayed with twice as many trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parts.measuring import goal
from parts.search_quality.replay import Lab
from parts.search_quality.table import Floats
from tuner.conductor.conductor import Conductor
from tuner.conductor.left import Left, best_after, estimate_left

SIZES = (16, 24, 48)  # trials of a search
# effective parameters, and noise of seeds: those that the share of the tail was chosen with, others
BOWLS: Sequence[tuple[int, float]] = ((2, 0.005), (5, 0.02), (1, 0.003), (3, 0.0), (8, 0.01))
REPLAYS: Mapping[str, Mapping[str, Any]] = {
    "random · asha": {"sampler": "random", "scheduler": "asha"},
    "tpe · none": {"sampler": "tpe", "scheduler": "none"},
    "tpe · asha": {"sampler": "tpe", "scheduler": "asha"},
}
SHARES = (0.02, 0.01, 0.005)  # of `stop_when_left_below`


@dataclass(frozen=True)
class Case:
    """One search: what it was told is left, and what was.

    Attributes:
        holds: True if the interval has the best loss after as many trials again.
        left: what is left at most, as a share of the best loss.
        gain: what as many trials again gained.
    """

    holds: bool
    left: float
    gain: float


def case(best: float, interval: tuple[float, float], truth: float) -> Case:
    """Compare an interval of the lowest loss with the truth."""
    low, high = interval
    slack = 1e-9 * abs(best)
    holds = low - slack <= truth <= high + slack
    return Case(holds, (best - low) / abs(best), (best - truth) / abs(best))


def random_cases(
    draw: Callable[[np.random.Generator], Floats], size: int, count: int
) -> list[Case]:
    """Return cases of random draws, trained to the end; `draw` returns at least 2·size losses."""
    rng, cases = np.random.default_rng(0), []
    for _ in range(count):
        losses = draw(rng)
        first = losses[:size]
        finite = first[np.isfinite(first)]
        low, _, high = best_after(finite.tolist(), size, size)
        best = float(finite.min())
        cases.append(case(best, (low, high), min(best, float(losses[size : 2 * size].min()))))
    return cases


def table_draw(losses: Floats) -> Callable[[np.random.Generator], Floats]:
    """Return a function that draws all losses of a table in random order."""
    return lambda rng: losses[rng.permutation(len(losses))]


def bowl_draw(parameters: int, noise: float) -> Callable[[np.random.Generator], Floats]:
    """Return a function that draws losses of random points of a random bowl.

    The bottom of the bowl lies anywhere in the middle half of each range, and its curvatures differ
    by a factor of up to a hundred.
    """

    def draw(rng: np.random.Generator) -> Floats:
        points = rng.uniform(-1, 1, (2 * max(SIZES), parameters))
        bottom, curvature = rng.uniform(-0.5, 0.5, parameters), 10 ** rng.uniform(-2, 0, parameters)
        heights = ((points - bottom) ** 2 * curvature).sum(axis=1)
        return np.asarray(3 + heights + rng.normal(0, noise, len(points)))

    return draw


def replayed_cases(
    lab: Lab, settings: Mapping[str, Any], size: int, seeds: int
) -> Iterator[Case | None]:
    """Yield the case of each seed; None where nothing could be told."""
    for seed in range(seeds):
        left = _left(_last(lab, {**settings, "trials": size}, seed))
        if left is None:
            yield None
            continue
        again = _last(lab, {**settings, "trials": size + left.more}, seed)
        yield case(left.best, (left.low, left.high), min(left.best, _best(again)))


def stopped(
    lab: Lab, settings: Mapping[str, Any], share: float, seed: int, most: int
) -> tuple[int, Case] | None:
    """Return the number of trials at which a search stops, and what was left then.

    None if it does not stop before `most` trials, of which as many again would be more than the
    table has.
    """
    ended = _last(lab, {**settings, "trials": most, "stop_when_left_below": share}, seed)
    left = _left(ended)
    if left is None or ended.limit is None:
        return None
    count = len(ended.board.searched)
    again = _last(lab, {**settings, "trials": count + left.more}, seed)
    return count, case(left.best, (left.low, left.high), min(left.best, _best(again)))


def _last(lab: Lab, settings: Mapping[str, Any], seed: int) -> Conductor:
    """Return the conductor of a search that has ended."""
    *_, (conductor, _) = lab.conducted(settings, seed)
    return conductor


def _left(conductor: Conductor) -> Left | None:
    return estimate_left(conductor.space, conductor.board.searched, conductor.proposals.draws)


def _best(conductor: Conductor) -> float:
    best = conductor.board.best_finished
    return math.inf if best is None else conductor.board.rank(best)


# the result -------------------------------------------------------------------------------------

_COLUMNS = [
    "", "trials", "searches", "not told", "interval holds", "% left at most, median",
    "% gained, mean", "% gained, 95 % quantile",
]  # fmt: skip


def row(name: str, size: int, cases: Sequence[Case | None]) -> list[Any]:
    """Return a row of the table of intervals."""
    known = [each for each in cases if each is not None]
    cells: list[Any] = [name, size, len(known), len(cases) - len(known)]
    if not known:
        return [*cells, *[""] * 4]
    left, gain = (100 * np.array([getattr(c, key) for c in known]) for key in ("left", "gain"))
    numbers = (np.median(left), gain.mean(), np.quantile(gain, 0.95))
    holds = sum(c.holds for c in known) / len(known)
    return [*cells, f"{100 * holds:.0f} %", *(f"{number:.2f}" for number in numbers)]


def stop_row(name: str, share: float, ends: Sequence[tuple[int, Case] | None]) -> list[Any]:
    """Return a row of the table of searches that stop by themselves."""
    found = [each for each in ends if each is not None]
    cells: list[Any] = [name, f"{100 * share:g} %", len(found), len(ends) - len(found)]
    if not found:
        return [*cells, *[""] * 3]
    counts = sorted(count for count, _ in found)
    gains = np.array([each.gain for _, each in found])
    more = f"{100 * np.mean(gains > share):.0f} %"
    return [*cells, counts[len(counts) // 2], f"{100 * gains.mean():.2f}", more]


def result_of(numbers: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`."""
    intervals = numbers["intervals"]
    least = min(float(r[4].split()[0]) for r in intervals if r[4])
    goals = [] if about["rehearsal"] else [
        goal("intervals that hold, % of the searches of the row with the fewest", least, least=85)
    ]  # fmt: skip
    return {
        "bench": "left",
        "about": dict(about),
        "tables": [
            {"title": "As many trials again", "columns": _COLUMNS, "rows": intervals},
            {
                "title": "Searches that stop by themselves",
                "columns": [
                    "", "stop_when_left_below", "stopped", "did not", "trials, median",
                    "% that as many again gain, mean", "that gain more than the setting",
                ],
                "rows": numbers["stopped"],
            },
        ],
        "goals": goals,
        "notes": [],
        "numbers": dict(numbers),
    }  # fmt: skip
