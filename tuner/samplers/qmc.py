"""Sampler `qmc`: a scrambled Sobol sequence with one coordinate for each parameter.

Optuna's QMC sampler knows only the parameters of its first trial and draws conditional parameters
at random. Here each parameter has a coordinate, drawn or not, and point n is a function of the seed
and n.

Source: Joe and Kuo 2008 (doi:10.1137/070709359), scrambled by Matoušek 1998, as in SciPy.
"""

from __future__ import annotations

from collections.abc import Callable

from model.keys import derive_key
from tuner.samplers.kind import Draw, SamplerKind
from tuner.space.space import SearchSpace


def _sequence(space: SearchSpace) -> Callable[[int], Draw]:
    """Return the sequence as a function from the number of a point to the point."""
    from scipy.stats.qmc import Sobol

    parameters = space.searched
    key = derive_key(space.search.seed, "qmc") % 2**32
    engine = Sobol(max(1, len(parameters)), scramble=True, rng=key)

    def point(number: int) -> Draw:
        engine.reset()
        if number:
            engine.fast_forward(number)
        places = engine.random(1)[0].tolist()
        return {p.label: p.at(place) for p, place in zip(parameters, places, strict=False)}

    return point


KIND = SamplerKind(
    says="fills the space evenly (scrambled Sobol points)",
    sequence=_sequence,
    for_several_objectives=True,
    uses_observations=False,
)
