"""What a new search learns from others (`search.learn_from`), in the form of its journal."""

from __future__ import annotations

from tuner.home.home import Home
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.data_facts import DataFacts
from tuner.space.proposals import NOTHING, Proposals
from tuner.space.space import SearchSpace


def learned(space: SearchSpace, facts: DataFacts, home: Home, name: str) -> Proposals:
    """Return what a search begins with; nothing if it does not learn.

    Populations train all members at once, and sources know one loss: where `auto` is the default,
    searches with a population, several objectives or arms of `compare:` do not learn.

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
    if names == "off" or is_population or space.further_objectives or space.compare is not None:
        return NOTHING
    from tuner.knowledge.proposals import propose

    return propose(space, facts, home, None if names == "auto" else names, name)
