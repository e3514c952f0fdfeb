"""What sources propose to the searches of search_quality.py: what is best, learned, or misleads.

A proposal is a row of the table, or becomes the nearest one that is not proposed already. Sources
that mislead do so with confidence, in four ways: they propose the worst, rows at random, the best
with a rate ten times too low, or what is good after one report and bad at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from parts.search_quality.table import Floats, Table
from tuner.knowledge.atlas import read_atlas
from tuner.knowledge.laws import block_weights
from tuner.knowledge.library import Library
from tuner.knowledge.proposals import CONFIDENCE, propose_from
from tuner.space.parameter import Value
from tuner.space.proposals import Proposals

PROPOSED = 3  # number of proposals
_ALIKE = math.log(2.5)  # ratio of weights within which models of the atlas have the table's size
_TOO_LOW = 10.0  # a rate is so many times too low
_AT_FIRST = 0.1  # share of the rows that are good after one report
_RATE = "max_learning_rate"


def best_draws(table: Table, count: int | None = None) -> tuple[Mapping[str, Value], ...]:
    """Return the configurations of a table, the best first."""
    order = np.argsort(table.final, kind="stable")
    return tuple(table.draws[row] for row in order[:count])


def _perfect(table: Table, weights: Floats, seed: int) -> Proposals:
    """Return the best rows, without a centre."""
    return Proposals(best_draws(table, PROPOSED))


@cache
def _library(log_weights: float) -> Library:
    """Return the atlas without the text of the tables, and without models of their size."""
    atlas = read_atlas()
    evidence = atlas.evidence
    is_other = evidence.texts != atlas.card["fingerprints"]["code"]
    is_other &= np.abs(evidence.sizes[:, 0] - log_weights) > _ALIKE
    return Library(((atlas.source, evidence.only(is_other)),))


_learned: dict[str, Proposals] = {}  # space of a table → proposals, which take a second


def _from_atlas(table: Table, weights: Floats, seed: int) -> Proposals:
    """Return the proposals from the atlas, without the table's text and size."""
    name = table.space.name
    if name not in _learned:
        (architecture,) = table.space.shapes(table.facts.vocab_size)
        library = _library(math.log(block_weights(architecture)))
        _learned[name] = propose_from(library, table.space, table.facts)
    return _of_table(_learned[name], table, weights)


def _of_table(proposals: Proposals, table: Table, weights: Floats) -> Proposals:
    """Return proposals whose draws are the nearest rows, which a search recognizes."""
    rows: list[int] = []
    for draw in proposals.draws:
        rows.append(table.nearest(table.draws[0] | dict(draw), weights, rows))
    return replace(proposals, draws=tuple(table.draws[row] for row in rows))


def _misled(table: Table, rows: Iterable[int]) -> Proposals:
    draws = tuple(table.draws[row] for row in rows)
    return Proposals(draws, draws[0], CONFIDENCE, sentence="misleading")


def _finished(table: Table) -> list[int]:
    """Return the rows that did not diverge, the best first."""
    return [int(row) for row in np.argsort(table.final, kind="stable") if table.final[row] < np.inf]


def _worst(table: Table, weights: Floats, seed: int) -> Proposals:
    return _misled(table, _finished(table)[: -PROPOSED - 1 : -1])


def _random(table: Table, weights: Floats, seed: int) -> Proposals:
    generator = np.random.default_rng(seed)
    return _misled(table, generator.choice(_finished(table), PROPOSED, replace=False).tolist())


def _too_low(table: Table, weights: Floats, seed: int) -> Proposals:
    rows: list[int] = []
    parameter = next(p for p in table.space.searched if p.name == _RATE)
    for draw in best_draws(table, PROPOSED):
        rate = parameter.nearest(float(draw[parameter.label]) / _TOO_LOW)
        rows.append(table.nearest({**draw, parameter.label: rate}, weights, rows))
    return _misled(table, rows)


def _good_at_first(table: Table, weights: Floats, seed: int) -> Proposals:
    order = np.argsort(np.nan_to_num(table.losses[:, 0], nan=np.inf), kind="stable")
    leaders = set(order[: round(_AT_FIRST * len(order))].tolist())
    return _misled(table, [row for row in reversed(_finished(table)) if row in leaders][:PROPOSED])


PERFECT, LEARNED = "perfect proposals", "learned from the atlas"
MISLEADING: Mapping[str, Callable[[Table, Floats, int], Proposals]] = {
    "the worst": _worst,
    "at random": _random,
    "a rate too low": _too_low,
    "good at first": _good_at_first,
}
# what sources propose in a search with a seed
SOURCES: Mapping[str, Callable[[Table, Floats, int], Proposals]] = {
    PERFECT: _perfect,
    LEARNED: _from_atlas,
    **MISLEADING,
}
