"""Scheduler `pb2`: population-based training with a bandit that chooses the copies.

Source: Parker-Holder et al. 2020, "Provably efficient online hyperparameter optimization with
population-based bandits" (arXiv:2002.02518). A Gaussian process with a kernel that forgets is
fitted to the gain of every member on each stretch between two exchange points, as a function of its
hyperparameters, of its value at the beginning of the stretch, and of time. A copy takes the setting
with the highest upper confidence bound, mean + √β·deviation, with β = 0.2·ln(0.4·n) for n stretches
as in the authors' program for Ray Tune. The deviation counts unfinished stretches as observed, so
that copies made at the same time differ (Desautels et al. 2014). `population` decides which members
are copied and when.

Decided here, where the paper is silent or this program differs:

* Gains are measured in standard deviations of the gains of all members on the same stretch: losses
  fall fast at first for every setting. A first stretch has no value at its beginning, because all
  members begin alike: the gain is minus the value at its end.
* β = 0.2 + ln(0.4·n), which other programs use, explores too much for a population of eight: copies
  missed the best λ of a synthetic task by a factor of about 4 instead of 2 to 3 (a few seeds each).
* A choice is one dimension for each of its values (the paper has only ranges; its successor PB2-Mix
  has another bandit for choices). Ranges are scaled to 0 … 1, on their log scale if they have one.
  Where a `when` does not hold, a range has its middle and a choice none of its values.
* The bound is maximised over random draws: some from the whole space, some near the parent, then
  two more sets closer and closer to the best draw so far. The best allowed draw is taken.
* The process is fitted to the newest 200 stretches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from tuner.schedulers.explore import Change, Draw, explored, first_allowed, generator, sample
from tuner.schedulers.gaussian_process import Floats, fit
from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.population import Member, Population, exchanges, mistakes
from tuner.space.parameter import Choice, Parameter, Range, Value

_NEWEST = 200  # number of stretches that the process is fitted to
_ANYWHERE = 96  # draws from the whole space
# then draws near another one: number, distance in units of the ranges, near the best draw so far
# (True) or the parent (False)
_NEAR = ((96, 0.15, False), (32, 0.05, True), (32, 0.015, True))
_MOST_TRIED = 50  # draws to check before the copy keeps its parent's hyperparameters
_CHOICE_CHANGES = 0.2  # probability that a near draw changes the value of a choice
_WEIGHT_OF_START = 0.25  # length of one standard deviation of the values, in units of a range


class PB2(Population):
    """Replaces members by copies with the largest upper confidence bound of the gain."""

    @override
    def explore(self, parent: Member, copy: int) -> dict[str, Value]:
        space, bound = self.space, self._bound(parent)
        random = generator(space.search.seed, copy, 1)
        draws = [explored(space, parent.draw, _anew(random)) for _ in range(_ANYWHERE)]
        for count, distance, from_best in _NEAR:
            centre = draws[0] if from_best else parent.draw
            draws += [explored(space, centre, _near(random, distance)) for _ in range(count)]
            order = np.argsort(-bound(draws), kind="stable")
            draws = [draws[i] for i in order]
        return first_allowed(space, self.context.train_size, parent.draw, draws[:_MOST_TRIED])

    def _bound(self, parent: Member) -> Callable[[Sequence[Draw]], Floats]:
        """Return a function from draws to the upper confidence bounds of their gains."""
        parameters = self.space.explored
        settings, times, gains = self._observed(parameters)
        process = fit(settings, times, gains)
        pending, pending_times = self._pending(parameters)
        with_pending = replace(
            process,
            settings=np.concatenate([settings, pending]),
            times=np.concatenate([times, pending_times]),
        )
        weight = math.sqrt(max(0.0, 0.2 * math.log(0.4 * max(3, len(gains)))))

        start = self._start(parent.point, parent.value)

        def bound(draws: Sequence[Draw]) -> Floats:
            points = np.array([[*encoded(parameters, draw), start] for draw in draws])
            next_time = np.full(len(draws), parent.point + 1.0)
            mean = process.mean(gains, points, next_time)
            return mean + weight * with_pending.deviation(points, next_time)

        return bound

    def _observed(self, parameters: list[Parameter]) -> tuple[Floats, Floats, Floats]:
        """Return settings, times and standardised gains of the newest stretches."""
        stretches = self.stretches[-_NEWEST:]
        gained = [
            -stretch.value if stretch.before is None else stretch.before - stretch.value
            for stretch in stretches
        ]
        side_by_side: dict[tuple[int, int], list[float]] = defaultdict(list)
        for stretch, gain in zip(stretches, gained, strict=True):
            side_by_side[stretch.since, stretch.point].append(gain)
        gains = [
            standardised(gain, side_by_side[stretch.since, stretch.point])
            for stretch, gain in zip(stretches, gained, strict=True)
        ]
        settings = [
            [*encoded(parameters, stretch.draw), self._start(stretch.since, stretch.before)]
            for stretch in stretches
        ]
        times = [float(stretch.point) for stretch in stretches]
        return _table(settings, parameters), np.array(times), np.array(gains)

    def _pending(self, parameters: list[Parameter]) -> tuple[Floats, Floats]:
        """Return settings and times of the unfinished stretches."""
        members = [m for m in self.members.values() if self.is_alive(m.number)]
        settings = [[*encoded(parameters, m.draw), self._start(m.point, m.value)] for m in members]
        times = [member.point + 1.0 for member in members]
        return _table(settings, parameters), np.array(times)

    def _start(self, point: int, value: float | None) -> float:
        """Return the value at the beginning of a stretch as a coordinate."""
        return (
            0.0 if value is None else _WEIGHT_OF_START * standardised(value, self.values_at(point))
        )


def encoded(parameters: list[Parameter], draw: Draw) -> list[float]:
    """Return the coordinates of a draw: one for a range, one for each value of a choice."""
    coordinates: list[float] = []
    for p in parameters:
        value = draw.get(p.label)
        if isinstance(p.distribution, Range):
            coordinates.append(0.5 if value is None else p.place_of(value))
        elif isinstance(p.distribution, Choice):
            # two values are as far apart as the ends of a range
            coordinates += [(value == v) * math.sqrt(0.5) for v in p.distribution.values]
    return coordinates


def standardised(value: float, values: Sequence[float]) -> float:
    """Return (value − mean)/standard deviation of some values; 0 if they are all equal."""
    spread = float(np.std(values)) if values else 0.0
    return (value - float(np.mean(values))) / spread if spread > 0 else 0.0


def _table(settings: list[list[float]], parameters: list[Parameter]) -> Floats:
    """Return coordinates as an array with the right width, even without rows."""
    width = len(encoded(parameters, {})) + 1
    return np.array(settings, dtype=np.float64).reshape(len(settings), width)


def _anew(random: np.random.Generator) -> Change:
    """Return the change of each value to a new draw."""
    return lambda parameter, _: sample(parameter, random)


def _near(random: np.random.Generator, distance: float) -> Change:
    """Return the change of each value to a close one."""

    def change(parameter: Parameter, value: Value | None) -> Value:
        if value is None:
            return sample(parameter, random)
        if isinstance(parameter.distribution, Range):
            return parameter.at(parameter.place_of(value) + distance * random.normal())
        return sample(parameter, random) if random.random() < _CHOICE_CHANGES else value

    return change


KIND = SchedulerKind(
    make=PB2,
    says=lambda space: f"{exchanges(space)} by a model of the improvements",
    is_population=True,
    mistakes=mistakes,
)
