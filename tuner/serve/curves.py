"""The curves of a search as pages draw them: each is made again once its trial has changed."""

from __future__ import annotations

import math
from collections.abc import Collection
from weakref import WeakKeyDictionary

from tuner.conductor.trial import Trial
from tuner.journal.fold import Search
from tuner.report.series import ending
from tuner.serve.api.downsampling import downsampled
from tuner.serve.views import CurveView

MOST_CURVES = 10_000
_MOST_POINTS, _FEWEST_POINTS = 125_000, 4
_MOST_KEPT = 4  # numbers of points for which the curves of a search are kept: a client may ask any

_Made = tuple[int, str, CurveView]  # number of reports and ending of a trial, and its curve then

# Search → most points → trial → curve; read and written by who holds the lock of the search.
_KEPT: WeakKeyDictionary[Search, dict[int, dict[int, _Made]]] = WeakKeyDictionary()


def curves_of(
    search: Search, points: int = 200, chosen: Collection[int] | None = None
) -> list[CurveView]:
    """Return the objective of trials at their reports, or at the most telling of them.

    Args:
        search: the search, whose lock the caller holds.
        points: most points of a curve, for a search of few trials. Many curves have fewer points
            each, of which more would not be seen.
        chosen: numbers of trials; by default all of them.
    """
    board = search.board
    trials = [board.trials[n] for n in chosen or board.trials if n in board.trials][:MOST_CURVES]
    most = max(3, points)
    while most * len(trials) > _MOST_POINTS and most > _FEWEST_POINTS:
        most //= 2  # by steps: another number of points makes all curves anew
    by_points, made = _KEPT.setdefault(search, {}), []
    if most not in by_points and len(by_points) == _MOST_KEPT:
        del by_points[next(iter(by_points))]
    kept = by_points.setdefault(most, {})
    for trial in trials:
        state = len(trial.reports), _ending(trial)
        found = kept.get(trial.number)
        if found is None or found[:2] != state:
            found = *state, _curve(trial, board.metric, most)
            kept[trial.number] = found
        made.append(found[2])
    return made


def _ending(trial: Trial) -> str:
    if trial.outcome:
        return ending(trial)
    return "paused" if trial.is_paused else ""


def _curve(trial: Trial, metric: str, most: int) -> CurveView:
    pairs = [(report.tokens, trial.value(metric, report)) for report in trial.reports]
    chosen = downsampled(pairs, most)
    return CurveView(
        trial=trial.number, tokens=[tokens for tokens, _ in chosen],
        values=[value if math.isfinite(value) else None for _, value in chosen],
        place=trial.place, ending=_ending(trial),
    )  # fmt: skip
