"""What a new search learns from others (`search.learn_from`), in the form of its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.home.home import Home
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.data_facts import DataFacts
from tuner.space.proposals import NOTHING, Proposals, SourceUsed
from tuner.space.space import SearchSpace

if TYPE_CHECKING:
    from tuner.knowledge import proposals as knowledge


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

    found = propose(space, facts, home.root, None if names == "auto" else names, name)
    return recorded(found).fitted(space)


def recorded(found: knowledge.Proposals) -> Proposals:
    """Return proposals in the form that the journal keeps."""
    return Proposals(
        tuple(found.draws),
        dict(found.centre or {}),
        found.confidence if found.centre else 0.0,
        tuple(SourceUsed(s.name, s.kind, s.digest, s.trials) for s in found.sources),
        tuple(found.left_out),
        found.sentence,
    )
