"""Scheduler `pbt`: population-based training with random exploring.

Source: Jaderberg et al. 2017, "Population based training of neural networks" (arXiv:1711.09846):
a copy's number is multiplied by 1.2 or divided by it, or drawn anew from its distribution with
probability 1/4 (appendix A.2); a choice moves to the next value of its list, or is drawn anew.
Products are moved into the range. `population` decides which members are copied and when.

Decided here: a whole number changes by at least one. A value whose `when` did not hold for the
parent is drawn. Draws that break a rule between hyperparameters, or change a value that is fixed
during training, are drawn again; after 20 such draws the copy keeps its parent's hyperparameters.
"""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from tuner.schedulers.explore import Change, explored, first_allowed, generator, perturbed, sample
from tuner.schedulers.kind import SchedulerKind
from tuner.schedulers.population import Member, Population, exchanges, mistakes
from tuner.space.parameter import Parameter, Value

_FACTOR = 1.2
_RESAMPLED = 0.25  # probability that a value is drawn anew
_MOST_DRAWS = 20


class PBT(Population):
    """Replaces members by copies with randomly perturbed hyperparameters."""

    @override
    def explore(self, parent: Member, copy: int) -> dict[str, Value]:
        space = self.space
        draws = (
            explored(space, parent.draw, _perturbing(generator(space.search.seed, copy, attempt)))
            for attempt in range(1, 1 + _MOST_DRAWS)
        )
        return first_allowed(space, self.context.train_size, parent.draw, draws)


def _perturbing(random: np.random.Generator) -> Change:
    """Return the change of each value with one random generator."""

    def change(parameter: Parameter, value: Value | None) -> Value:
        if value is None or random.random() < _RESAMPLED:
            return sample(parameter, random)
        return perturbed(parameter, value, _FACTOR, random)

    return change


KIND = SchedulerKind(make=PBT, says=exchanges, is_population=True, mistakes=mistakes)
