"""Scheduler `pb2`: population-based training whose copies a bandit chooses.

Source: Parker-Holder et al. 2020, "Provably efficient online hyperparameter optimization with
population-based bandits" (arXiv:2002.02518). A Gaussian process with a kernel that forgets is
fitted to what every member gained on each stretch between two exchange points, as a function of
its hyperparameters, of its value where the stretch began, and of time. A copy takes the setting
with the highest upper confidence bound, mean + √β·deviation, with β = 0.2·ln(0.4·n) for n stretches
as in the authors' program for Ray Tune. The deviation counts the stretches that are still under way
as observed, so that copies made at the same time differ (Desautels et al. 2014). `population` says
who is copied when.

Decided here, where the paper is silent or we differ:

* Gains are measured in standard deviations of the gains of all members on the same stretch: losses
  fall fast at first for every setting. A first stretch has no value where it began, as all begin
  alike: the gain is minus the value at its end.
* β = 0.2 + ln(0.4·n), which is also seen, explores too much for a population of eight: copies
  missed the best λ of a made-up task by a factor of about 4 instead of 2 to 3 (a few seeds each).
* A choice is one dimension for each of its values (the paper has only ranges; its successor
  PB2-Mix another bandit). Ranges are scaled to 0 … 1, on a log scale if they have one. Where a
  `when` does not hold, a range stands in its middle and a choice at none of its values.
* The bound is maximised over draws: some anywhere, some near the parent's, then twice some nearer
  and nearer to the best so far. The best one that is allowed is taken.
* The newest 200 stretches are looked at.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tuner.schedulers.explore import Change, Draw, explored, first_allowed, generator, sample
from tuner.schedulers.gaussian_process import Floats, fit
from tuner.schedulers.population import Member, Population
from tuner.space.parameter import Choice, Parameter, Range, Value

_NEWEST = 200  # stretches that the process is fitted to
_ANYWHERE = 96  # draws from the whole space
# then draws near another: how many, how near in units of the ranges, near the best so far or parent
_NEAR = ((96, 0.15, False), (32, 0.05, True), (32, 0.015, True))
_MOST_TRIED = 50  # draws that may break a rule before the copy keeps its parent's
_CHOICE_CHANGES = 0.2  # how often a near draw has another value of a choice
_WEIGHT_OF_START = 0.25  # a standard deviation of the values is so much of a range


class PB2(Population):
    """Copies of the best quarter, with hyperparameters that promise the largest gain."""

    def explore(self, parent: Member, copy: int) -> dict[str, Value]:
        """The allowed draw with the highest upper confidence bound."""
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
        """The upper confidence bound of the gain of copies of a parent, with some draws."""
        parameters = self.space.explored
        settings, times, gains = self._observed(parameters)
        process = fit(settings, times, gains)
        pending, then = self._pending(parameters)
        aware = replace(
            process,
            settings=np.concatenate([settings, pending]),
            times=np.concatenate([times, then]),
        )
        weight = math.sqrt(max(0.0, 0.2 * math.log(0.4 * max(3, len(gains)))))

        start = self._start(parent.point, parent.value)

        def bound(draws: Sequence[Draw]) -> Floats:
            points = np.array([[*encoded(parameters, draw), start] for draw in draws])
            next_time = np.full(len(draws), parent.point + 1.0)
            mean = process.mean(gains, points, next_time)
            return mean + weight * aware.deviation(points, next_time)

        return bound

    def _observed(self, parameters: list[Parameter]) -> tuple[Floats, Floats, Floats]:
        """Settings, times and standardised gains of the newest stretches."""
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
        """Settings and times of the stretches that members are on."""
        members = [m for m in self.members.values() if self.is_alive(m.number)]
        settings = [[*encoded(parameters, m.draw), self._start(m.point, m.value)] for m in members]
        times = [member.point + 1.0 for member in members]
        return _table(settings, parameters), np.array(times)

    def _start(self, point: int, value: float | None) -> float:
        """How good the state was that a stretch began with, as a coordinate."""
        return (
            0.0 if value is None else _WEIGHT_OF_START * standardised(value, self.values_at(point))
        )


def encoded(parameters: list[Parameter], draw: Draw) -> list[float]:
    """The coordinates of a draw: one for each range, one for each value of a choice."""
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
    """How many standard deviations a value lies above the mean of some; 0 if they are equal."""
    spread = float(np.std(values)) if values else 0.0
    return (value - float(np.mean(values))) / spread if spread > 0 else 0.0


def _table(settings: list[list[float]], parameters: list[Parameter]) -> Floats:
    """Rows of coordinates; with the right width even if there are none."""
    width = len(encoded(parameters, {})) + 1
    return np.array(settings, dtype=np.float64).reshape(len(settings), width)


def _anew(random: np.random.Generator) -> Change:
    """The change of each value to any other."""
    return lambda parameter, _: sample(parameter, random)


def _near(random: np.random.Generator, distance: float) -> Change:
    """The change of each value to one nearby."""

    def change(parameter: Parameter, value: Value | None) -> Value:
        if value is None:
            return sample(parameter, random)
        if isinstance(parameter.distribution, Range):
            return parameter.at(parameter.place_of(value) + distance * random.normal())
        return sample(parameter, random) if random.random() < _CHOICE_CHANGES else value

    return change
