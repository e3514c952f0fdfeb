"""What a new search learns from others (`search.learn_from`), in the form of its journal."""

from __future__ import annotations

from tuner.home.home import Home
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Parameter, Value
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace


def learned(space: SearchSpace, facts: DataFacts, home: Home, name: str) -> Proposals:
    """Return what a search begins with; nothing if it does not learn.

    A population trains all members at once and compares them at its exchange points, and sources
    know one loss: such searches learn only if nothing is set, which is to say, not at all.

    Args:
        space: space of the search.
        facts: facts of its data.
        home: home of the searches to learn from.
        name: name of the search, which does not learn from itself.

    Raises:
        TunerError: if a source does not exist or cannot be used.
    """
    names = space.search.learn_from
    is_population = SCHEDULERS[space.search.scheduler].is_population
    if names == "off" or is_population or space.further_objectives:
        return NOTHING
    from tuner.knowledge.proposals import propose

    return propose(space, facts, home, None if names == "auto" else names, name)


def fitted(proposals: Proposals, space: SearchSpace) -> Proposals:
    """Return proposals with each value moved into the distribution of its parameter in a space."""
    defaults = space.defaults()
    parameters = {p.label: p for p in space.searched}
    draws = [
        space.only_drawn(
            {label: _moved(p, draw.get(label, defaults[label])) for label, p in parameters.items()}
        )
        for draw in proposals.draws
    ]
    known = {label: v for label, v in proposals.centre.items() if label in parameters}
    return replace(
        proposals,
        draws=tuple(draw for i, draw in enumerate(draws) if draw not in draws[:i]),
        centre={label: _moved(parameters[label], value) for label, value in known.items()},
        confidence=proposals.confidence if known else 0.0,
    )


def _moved(parameter: Parameter, value: Value) -> Value:
    if not parameter.contains(value):
        value = parameter.nearest(value)
    return parameter.distribution.as_drawn(value)
