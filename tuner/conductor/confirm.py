"""Which configurations are retrained with which fresh seeds, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.keys import derive_key
from model.spec.trial import Continues, TrialSpec
from tuner.conductor.board import Board
from tuner.conductor.confirmation import Confirmation, confirm
from tuner.conductor.trial import Trial
from tuner.space.space import SearchSpace


def finalists(board: Board, space: SearchSpace) -> list[Trial]:
    """The best finished trials; of several objectives there is no one best."""
    return [] if len(space.objectives) > 1 else board.ranked[: space.confirm.top]


def missing_pairs(board: Board, space: SearchSpace) -> Iterator[tuple[Trial, int]]:
    """Each finalist with each fresh seed that no trial has, seed by seed."""
    there = {(row.confirms, row.spec.seed) for row in board.confirming}
    for seed in _seeds(space):
        for row in finalists(board, space):
            if (row.number, seed) not in there:
                yield row, seed


def repetition(number: int, row: Trial, seed: int) -> Trial:
    """A trial that trains another's configuration with a seed, and all that it continues."""
    return Trial(number, _reseeded(row.spec, seed), row.draw, confirms=row.number)


def conclude(board: Board, space: SearchSpace) -> Confirmation | None:
    """Compare the finalists, once each has ended with each seed; the board then has a winner.

    Returns:
        None while one is missing, or if nothing is confirmed.
    """
    best = finalists(board, space)
    again = {(row.confirms, row.spec.seed): row for row in board.confirming}
    pairs = {row.number: [again.get((row.number, s)) for s in _seeds(space)] for row in best}
    ended = [row for rows in pairs.values() for row in rows if row is not None and row.outcome]
    if not best or len(ended) < len(best) * space.confirm.seeds:
        return None
    values = {
        number: [None if row is None or row.failed else board.value(row) for row in rows]
        for number, rows in pairs.items()
    }
    found = confirm(values, space.objective.mode)
    if found.winner is not None:
        board.winner = found.winner.number
    return found


def _seeds(space: SearchSpace) -> Sequence[int]:
    root = space.search.seed
    return [derive_key(root, "confirm", i) >> 1 for i in range(space.confirm.seeds)]


def _reseeded(spec: TrialSpec, seed: int) -> TrialSpec:
    start = spec.continues
    if start is not None:
        start = Continues(spec=_reseeded(start.spec, seed), step=start.step)
    return spec.model_copy(update={"seed": seed, "continues": start})
