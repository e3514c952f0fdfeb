"""User priors on parameters: `prior: {centre: 1e-3}`.

Priors work with every sampler: a share of the suggestions draws the parameters with a prior from
the prior, and only the other parameters from the sampler. This share and the closeness to the
centre decrease with the number of suggestions, so that the search recovers from a wrong prior.
After n suggestions, with confidence c and β = 10:

    probability that a suggestion uses the prior   √c / (1 + n/β)
    standard deviation, as a share of the range   0.3·(1 − c)·√(1 + n/β)

The second line is πBO's prior^(β/n) for a normal distribution: its variance grows with n (Hvarfner
et al. 2022, arXiv:2204.11051). πBO multiplies the prior with the acquisition function; samplers
that have none are mixed with the prior instead, as in PriorBand (Mallik et al. 2023,
arXiv:2306.12370).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

from model.keys import derive_key
from tuner.space.parameter import Choice, Constant, Parameter, Value

_FADE = 10  # β: number of suggestions after which the share of the prior has halved
_WIDEST = 0.3  # standard deviation of a prior without confidence


def prior_share(confidence: float, count: int) -> float:
    """Return the probability that a suggestion uses the prior, after `count` suggestions."""
    return math.sqrt(confidence) / (1 + count / _FADE)


def prior_draw(
    parameters: Iterable[Parameter], seed: int, number: int, count: int
) -> dict[str, Value]:
    """Return the values that a suggestion takes from the priors: label → value.

    One random number decides for all parameters, because their centres were believed to be good
    together: a suggestion uses all priors, those with enough confidence, or none.

    Args:
        parameters: parameters of the space.
        seed: seed of the search.
        number: number of the trial.
        count: number of earlier suggestions.
    """
    return {
        p.label: _value(p, uniform(seed, "prior", p.label, number), count)
        for p in parameters
        if p.prior is not None and asks_prior(p.prior.confidence, seed, number, count)
    }


def prior_density(parameter: Parameter, places: Sequence[float]) -> list[float]:
    """Return the density of the first suggestion's draw, relative to one without a prior.

    Args:
        parameter: a parameter that is drawn, with a prior or without.
        places: places of its distribution, in [0, 1].
    """
    prior, d = parameter.prior, parameter.distribution
    if prior is None:
        return [1.0] * len(places)
    share = prior_share(prior.confidence, 0)
    if isinstance(d, Choice):
        of_centre, count = share * prior.confidence, len(d.values)
        at_centre = 1 - of_centre + of_centre * count
        return [
            at_centre if parameter.at(place) == prior.centre else 1 - of_centre for place in places
        ]
    normal = NormalDist(parameter.place_of(prior.centre), _WIDEST * (1 - prior.confidence))
    mass = normal.cdf(1.0) - normal.cdf(0.0)
    return [1 - share + share * normal.pdf(place) / mass for place in places]


def asks_prior(confidence: float, seed: int, number: int, count: int) -> bool:
    """Return True if a suggestion draws the parameters with a prior of some confidence from it."""
    return uniform(seed, "ask the prior", number) < prior_share(confidence, count)


def _value(parameter: Parameter, u: float, count: int) -> Value:
    """Return the quantile of the prior at u in (0, 1)."""
    prior, d = parameter.prior, parameter.distribution
    assert prior is not None
    assert not isinstance(d, Constant)
    width = math.sqrt(1 + count / _FADE)
    if isinstance(d, Choice):
        share = prior.confidence / width  # of the centre; the rest is uniform
        if u < share:
            return prior.centre
        return parameter.at((u - share) / (1 - share))
    middle = parameter.place_of(prior.centre)
    normal = NormalDist(middle, _WIDEST * (1 - prior.confidence) * width)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    return parameter.at(normal.inv_cdf(low + u * (high - low)))


def uniform(seed: int, *place: int | str) -> float:
    """Return a keyed random number in (0, 1), without its ends."""
    return (derive_key(seed, *place) + 0.5) / 2.0**64
