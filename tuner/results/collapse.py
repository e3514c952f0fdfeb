"""Loss collapse: curves of trials, divided by the best final loss of their size, in one band.

The curves of a family that transfers coincide, whatever the size of the model; a trial that leaves
the band will not end among the good ones, and shows it long before its end.

Source: Qiu et al. 2025, Scaling Collapse Reveals Universal Dynamics in Compute-Optimally Trained
Neural Networks (arXiv:2507.02119); Bergsma et al. 2025, Scaling with Collapse (arXiv:2509.25087).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # importing scipy.stats takes a second more

from tuner.conductor.trial import Trial

GOOD = 0.05  # a good trial ends within this share of the best of its size
EARLY = 0.4  # share of the training up to which a trial may leave the band
# Of the committed table of bench/search_quality.py, 24 or 64 trials at a time: 2 of 100 good trials
# leave a band of other trials, and 97 of 100 whose rate is a fourth of theirs or less.
_CONFIDENCE = 0.98
_FEWEST = 3  # good trials of a band


@dataclass(frozen=True)
class CollapsedCurve:
    """Losses of a trial, divided by the best final loss of its size.

    Attributes:
        number: number of the trial.
        parameters: number of weights of its model.
        is_good: True if it ended near the best of its size: the band is made of it.
        places: numbers of its reports.
        values: losses divided by the best final loss; from 1 for the best at its end.
        left: first report outside of the band, within the first 40 % of the training; or None.
    """

    number: int
    parameters: int
    is_good: bool
    places: tuple[int, ...]
    values: tuple[float, ...]
    left: int | None


@dataclass(frozen=True)
class Collapse:
    """Curves of trials with one schedule and the same number of reports, and their band.

    Attributes:
        schedule: learning-rate schedule of the trials.
        num_places: number of reports of a complete trial.
        curves: by number.
        middle: geometric mean of the good trials' values at each report.
        upper: end of the band at each report.
    """

    schedule: str
    num_places: int
    curves: tuple[CollapsedCurve, ...]
    middle: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def key(self) -> str:
        """Schedule and number of reports: no two bands of a search have the same."""
        return f"{self.schedule}-{self.num_places}"

    @property
    def shares(self) -> list[float]:
        """Share of the training at each report."""
        return [place / self.num_places for place in range(1, self.num_places + 1)]

    @property
    def lower(self) -> list[float]:
        """Lower end of the band at each report, as far from the middle as the upper one."""
        return [m * m / u for m, u in zip(self.middle, self.upper, strict=True)]

    @property
    def sizes(self) -> list[int]:
        """Numbers of weights of the models, each once, smallest first."""
        return sorted({curve.parameters for curve in self.curves})

    @property
    def left(self) -> list[CollapsedCurve]:
        """Trials that left the band early."""
        return [curve for curve in self.curves if curve.left is not None]


def collapses(trials: Iterable[Trial], metric: str) -> list[Collapse]:
    """Return the bands of the schedules that have at least three good trials.

    The trials may not have been selected by their losses: a scheduler that stops trials keeps those
    that were early, their band is too narrow, and of 100 good trials of the committed table 11 to
    17 left it.

    Args:
        trials: trials of a search without a scheduler, without retrainings and repetitions.
        metric: a loss, smaller is better and above 0.
    """
    families: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        values = [trial.value(metric, report) for report in trial.reports]
        if values and all(0 < value < math.inf for value in values):
            schedule = str(trial.spec.hyperparameters.schedule)
            families.setdefault((schedule, trial.num_places), []).append(trial)
    found = (_collapse(family, metric, *key) for key, family in sorted(families.items()))
    return [collapse for collapse in found if collapse is not None]


def _collapse(
    trials: Sequence[Trial], metric: str, schedule: str, num_places: int
) -> Collapse | None:
    finished = [t for t in trials if t.has_finished and len(t.reports) == num_places]
    best: dict[int, float] = {}
    for trial in finished:
        size = _size(trial)
        best[size] = min(best.get(size, math.inf), trial.objective(metric))
    good = [t for t in finished if t.objective(metric) <= best[_size(t)] * (1 + GOOD)]
    if len(good) < _FEWEST:
        return None
    logs = np.log([_values(t, metric, best) for t in good])
    middle, count = logs.mean(axis=0), len(good)
    early = max(1, math.floor(EARLY * num_places))
    quantile = stdtrit(count - 1, 1 - (1 - _CONFIDENCE) / early)
    upper = np.exp(middle + quantile * logs.std(axis=0, ddof=1) * math.sqrt(1 + 1 / count))
    curves = [
        _curve(t, _values(t, metric, best), t in good, upper[:early].tolist())
        for t in trials if _size(t) in best
    ]  # fmt: skip
    return Collapse(
        schedule, num_places, tuple(sorted(curves, key=lambda curve: curve.number)),
        tuple(np.exp(middle).tolist()), tuple(upper.tolist()),
    )  # fmt: skip


def _curve(
    trial: Trial, values: Sequence[float], is_good: bool, upper: Sequence[float]
) -> CollapsedCurve:
    pairs = zip(values, upper, strict=False)
    left = next((place for place, (value, end) in enumerate(pairs, 1) if value > end), None)
    places = tuple(range(1, len(values) + 1))
    return CollapsedCurve(
        trial.number, _size(trial), is_good, places, tuple(values), None if is_good else left
    )


def _values(trial: Trial, metric: str, best: Mapping[int, float]) -> list[float]:
    return [trial.value(metric, report) / best[_size(trial)] for report in trial.reports]


def _size(trial: Trial) -> int:
    return trial.spec.architecture.num_parameters
