"""What somebody believes of a parameter before the search: `prior: {centre: 1e-3}`.

Works with every sampler: some suggestions take the parameters that have a prior from it, and only
the others from the sampler. At first most do, and close to the centre; later fewer, and further
away, so that a wrong belief is unlearned. After n suggestions, with confidence c and β = 10:

    chance that a suggestion asks the prior   √c / (1 + n/β)
    standard deviation, as a share of the range   0.3·(1 − c)·√(1 + n/β)

The second line is πBO's prior^(β/n) for a normal distribution: its variance grows with n (Hvarfner
et al. 2022, arXiv:2204.11051). πBO multiplies it with what the sampler wants; samplers that do not
say how much they want a point are mixed with it instead, as PriorBand does (Mallik et al. 2023,
arXiv:2306.12370).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

from model.keys import derive_key
from tuner.space.parameter import Choice, Constant, Parameter, Value

_FADE = 10  # β: after so many suggestions the prior has half of its share left
_WIDEST = 0.3  # standard deviation of a prior without confidence


def prior_share(confidence: float, count: int) -> float:
    """Chance that the suggestion after so many others asks the prior."""
    return math.sqrt(confidence) / (1 + count / _FADE)


def prior_draw(
    parameters: Iterable[Parameter], seed: int, number: int, count: int
) -> dict[str, Value]:
    """What suggestion `number`, after `count` others, takes from the priors: label → value.

    All parameters with a prior, or those of which somebody is sure enough, or none: they were
    believed to be good together.
    """
    coin = uniform(seed, "ask the prior", number)
    return {
        p.label: _value(p, uniform(seed, "prior", p.label, number), count)
        for p in parameters
        if p.prior is not None and coin < prior_share(p.prior.confidence, count)
    }


def _value(parameter: Parameter, u: float, count: int) -> Value:
    """The prior's quantile at u in (0, 1)."""
    prior, d = parameter.prior, parameter.distribution
    assert prior is not None
    assert not isinstance(d, Constant)
    width = math.sqrt(1 + count / _FADE)
    if isinstance(d, Choice):
        sure = prior.confidence / width
        if u < sure:
            return prior.centre
        return parameter.at((u - sure) / (1 - sure))
    middle = parameter.place_of(prior.centre)
    normal = NormalDist(middle, _WIDEST * (1 - prior.confidence) * width)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    return parameter.at(normal.inv_cdf(low + u * (high - low)))


def uniform(seed: int, *place: int | str) -> float:
    """A keyed number, strictly between 0 and 1."""
    return (derive_key(seed, *place) + 0.5) / 2.0**64
