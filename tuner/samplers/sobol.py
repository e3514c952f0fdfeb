"""Sampler `qmc`: a scrambled Sobol sequence with one coordinate for each parameter.

Optuna's QMC sampler knows only the parameters of its first trial and draws conditional parameters
at random. Here each parameter has a coordinate, drawn or not, and point n is a function of the seed
and n.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.keys import derive_key
from tuner.space.parameter import Parameter, Value


class Sobol:
    """A scrambled Sobol sequence.

    Args:
        parameters: parameters to draw.
        seed: seed of the scrambling.

    Source: Joe and Kuo 2008 (doi:10.1137/070709359), scrambled by Matoušek 1998, as in SciPy.
    """

    def __init__(self, parameters: Sequence[Parameter], seed: int) -> None:
        from scipy.stats.qmc import Sobol as Engine

        self._parameters = parameters
        key = derive_key(seed, "qmc") % 2**32
        self._engine = Engine(max(1, len(parameters)), scramble=True, rng=key)

    def draw(self, index: int) -> dict[str, Value]:
        """Return point `index`, from 0: label → value."""
        self._engine.reset()
        if index:
            self._engine.fast_forward(index)
        places = self._engine.random(1)[0].tolist()
        return {p.label: p.at(place) for p, place in zip(self._parameters, places, strict=False)}
