"""What a search begins with if it learns from earlier ones (`search.learn_from`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.home.home import Home
from tuner.knowledge.candidates import Candidates
from tuner.knowledge.library import Library, collect
from tuner.knowledge.suggestion import Advisor
from tuner.space.data_facts import DataFacts
from tuner.space.first_draws import fitted
from tuner.space.proposals import Proposals
from tuner.space.space import SearchSpace
from tuner.texts.formatting import counted, listed

_PROPOSALS, CONFIDENCE = 3, 0.75
_NEAR = 4.0  # times the largest, or a part of the smallest source: farther away, laws propose


def propose(
    space: SearchSpace, facts: DataFacts, home: Home, names: Sequence[str] | None, besides: str = ""
) -> Proposals:
    """Return the proposals for a search.

    Args:
        space: space of the search.
        facts: facts of its data.
        home: home of the searches.
        names: searches to learn from, or `atlas`; None for all of the home and the atlas.
        besides: name of the search itself.

    Raises:
        TunerError: if a named search does not exist, or has no evidence.
    """
    return propose_from(collect(home, names, besides=besides), space, facts)


def propose_from(library: Library, space: SearchSpace, facts: DataFacts) -> Proposals:
    """Return the proposals for a search from some evidence."""
    candidates = Candidates(space, facts)
    reason = candidates.obstacle()
    if reason is None and not candidates.known:
        reason = "it searches nothing that is known about"
    if reason is not None:
        return Proposals(left_out=library.left_out, sentence=f"nothing was learned: {reason}")
    is_near = _is_near(library, candidates)
    used = library if is_near else Library()
    advisor = Advisor(used, candidates.target)
    pool, points = candidates.pool(advisor)
    draws = [pool[number] for number in advisor.best(points, _PROPOSALS if is_near else 1)]
    labels = [p.label for p in candidates.known]
    proposals = Proposals(
        tuple(draws),
        {label: draws[0][label] for label in labels},
        CONFIDENCE,
        used.sources,
        library.left_out,
        _sentence(used, len(draws)),
    )
    return fitted(proposals, space)


def _is_near(library: Library, candidates: Candidates) -> bool:
    evidence = library.evidence
    if not len(evidence):
        return False
    size, sizes = candidates.target.size[:2], evidence.sizes[:, :2]
    low, high = sizes.min(0) - np.log(_NEAR), sizes.max(0) + np.log(_NEAR)
    return bool(((low <= size) & (size <= high)).all())


def _sentence(library: Library, count: int) -> str:
    if not library.sources:
        return (
            "no source is near the size and the budget of this search: its first trials are those "
            "of published laws"
        )
    names = [source.text for source in library.sources]
    some = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
    return f"learned from {listed(some, 'and')}: {counted(count, 'configuration')} proposed"
