"""Candidates of a space: draws near the best settings, and their places on the scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model.spec.trial import TrialSpec
from tuner.errors import TunerError
from tuner.knowledge.basin import TargetCell
from tuner.knowledge.evidence import obstacle, text_of
from tuner.knowledge.laws import block_weights
from tuner.knowledge.settings import NAMES, SETTINGS, point
from tuner.knowledge.suggestion import Advisor
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Choice, Parameter, Value
from tuner.space.space import SearchSpace

Floats = npt.NDArray[np.float64]
Draw = Mapping[str, Value]

_CENTRES = 100  # of the posterior, that become draws
_STEPS = (-0.2, -0.06, -0.02, 0.02, 0.06, 0.2)  # of a place in [0, 1), to improve a draw
_ROUNDS, _BEAM = 4, 4


@dataclass(frozen=True)
class Candidates:
    """Draws of a space for the model of its defaults.

    Attributes:
        space: the space.
        facts: facts of its data.
    """

    space: SearchSpace
    facts: DataFacts

    @cached_property
    def defaults(self) -> Draw:
        """The draw of the defaults."""
        return self.space.only_drawn(self.space.defaults())

    @cached_property
    def known(self) -> list[Parameter]:
        """The searched parameters that knowledge is about."""
        drawn = [p for p in self.space.searched if p.label in self.defaults]
        return [p for p in drawn if p.name in NAMES]

    @cached_property
    def _spec(self) -> TrialSpec:
        return self.space.spec(self.defaults, self.facts, 0)

    def obstacle(self) -> str | None:
        """Return why nothing is known about the trials of the space; None if something is."""
        return obstacle(self._spec)

    @cached_property
    def target(self) -> TargetCell:
        """Size, budget and text of the trials."""
        spec = self._spec
        text = text_of(spec.data_fingerprint, spec.tokenizer_fingerprint)
        a = spec.architecture
        return TargetCell(block_weights(a), spec.budget_tokens, text, a.num_parameters)

    @cached_property
    def _places(self) -> dict[tuple[Value, ...], list[float]]:
        """Values of a draw → its places; empty if the draw breaks a rule."""
        return {}

    def places(self, draw: Draw) -> list[float]:
        """Return the place of a draw on each scale, (D,)."""
        h = self.space.derive(draw, self.facts.train_size, self.facts.vocab_size)
        return point(h, self._spec.architecture.context_length)

    def near(self, centre: Floats) -> Draw:
        """Return the draw of the space that is nearest to places on the scales."""
        values = [s.value(float(place)) for s, place in zip(SETTINGS, centre, strict=True)]
        by_name = dict(zip(NAMES, values, strict=True))
        draw = dict(self.defaults)
        for p in self.known:
            value = by_name[p.name]
            if p.name == "batch_size":
                value /= self._spec.architecture.context_length
            elif p.name == "warmup_steps" and p.fraction_of != "total_steps":
                value *= self._spec.hyperparameters.total_steps
            elif p.name == "min_learning_rate" and p.fraction_of != "max_learning_rate":
                value *= by_name["max_learning_rate"]
            draw[p.label] = _nearest(p, value)
        return draw

    def pool(self, advisor: Advisor) -> tuple[list[Draw], Floats]:
        """Return draws near the best ones, and their places, (m, D).

        Raises:
            TunerError: if no draw is possible.
        """
        draws = _distinct([self.near(centre) for centre in advisor.bowls.centres[:_CENTRES]])
        for _ in range(_ROUNDS):
            draws, points = self._possible(draws)
            order = advisor.bowls.regrets(points).mean(0).argsort()[:_BEAM]
            more = [moved for number in order for moved in self._around(draws[int(number)])]
            draws = _distinct([*draws, *more])
        return self._possible(draws)

    def _possible(self, draws: Sequence[Draw]) -> tuple[list[Draw], Floats]:
        """Return the draws that break no rule between hyperparameters, and their places."""
        possible, points = [], []
        for draw in draws:
            key = tuple(draw.values())
            if key not in self._places:
                try:
                    self._places[key] = self.places(draw)
                except ValueError:
                    self._places[key] = []
            if self._places[key]:
                points.append(self._places[key])
                possible.append(draw)
        if not possible:
            raise TunerError(f"no configuration of {self.space.name} near the best is possible")
        return possible, np.array(points)

    def _around(self, draw: Draw) -> list[Draw]:
        moved: list[Draw] = []
        for p in self.known:
            values = p.distribution.possible_values()
            if isinstance(p.distribution, Choice) and values:
                moved += [{**draw, p.label: value} for value in values]
            else:
                place = p.place_of(draw[p.label])
                places = [min(max(place + step, 0.0), 1 - 1e-9) for step in _STEPS]
                moved += [{**draw, p.label: p.at(at)} for at in places]
        return moved


def _nearest(parameter: Parameter, value: float) -> Value:
    """Return the value of a parameter that is nearest: by the ratio, if its values are positive."""
    values = parameter.distribution.possible_values()
    numbers = [v for v in values or () if isinstance(v, int | float) and v > 0]
    if values and len(numbers) == len(values) and value > 0:
        return min(numbers, key=lambda v: abs(math.log(v / value)))
    return parameter.nearest(value)


def _distinct(draws: Sequence[Draw]) -> list[Draw]:
    found = {tuple(draw.items()): draw for draw in draws}
    return list(found.values())
