"""Chooses the configurations and fresh seeds to retrain, and confirms the winner from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.keys import derive_key
from model.spec.trial import Continues, TrialSpec
from tuner.conductor.board import Board
from tuner.conductor.confirmation import Confirmation, compare_retrained
from tuner.conductor.trial import Trial
from tuner.samplers.arms import arms_of, num_finalists
from tuner.space.space import SearchSpace


def finalists(board: Board, space: SearchSpace) -> list[Trial]:
    """Return the best finished trials, with `compare:` those of each arm.

    There are none with several objectives, which have no single best.
    """
    ranked, arms = board.ranked, arms_of(space)
    if not arms:
        return ranked[: num_finalists(space)]
    members = ([trial for trial in ranked if arm.has(trial.draw)] for arm in arms)
    return [trial for trials in members for trial in trials[: space.confirm.top]]


def missing_pairs(board: Board, space: SearchSpace) -> Iterator[tuple[Trial, int]]:
    """Yield each finalist with each fresh seed that no trial has, seed by seed."""
    present = {(trial.confirms, trial.spec.seed) for trial in board.confirming}
    best = finalists(board, space)
    for seed in _seeds(space):
        for finalist in best:
            if (finalist.number, seed) not in present:
                yield finalist, seed


def retraining_of(number: int, finalist: Trial, seed: int) -> Trial:
    """Return a trial that repeats a finalist, and all that it continues from, with a seed."""
    spec = _reseeded(finalist.spec, seed)
    return Trial(number, spec, finalist.draw, confirms=finalist.number)


def conclude(board: Board, space: SearchSpace) -> Confirmation | None:
    """Compare the finalists, and set the board's winner, once all retrainings have ended.

    Returns:
        The comparison; None while a retraining is missing, or if nothing is to be confirmed.
    """
    best = finalists(board, space)
    retrainings = {(trial.confirms, trial.spec.seed): trial for trial in board.confirming}
    by_finalist = {
        finalist.number: [retrainings.get((finalist.number, seed)) for seed in _seeds(space)]
        for finalist in best
    }
    ended = [
        trial
        for trials in by_finalist.values()
        for trial in trials
        if trial is not None and trial.outcome
    ]
    if not best or len(ended) < len(best) * space.confirm.seeds:
        return None
    values = {
        number: [
            None if trial is None or trial.has_failed else board.value(trial) for trial in trials
        ]
        for number, trials in by_finalist.items()
    }
    confirmation = compare_retrained(values, space.objective.mode)
    if confirmation.winner is not None:
        board.winner = confirmation.winner.number
    return confirmation


def _seeds(space: SearchSpace) -> Sequence[int]:
    root = space.search.seed
    return [derive_key(root, "confirm", i) >> 1 for i in range(space.confirm.seeds)]


def _reseeded(spec: TrialSpec, seed: int) -> TrialSpec:
    start = spec.continues
    if start is not None:
        start = Continues(spec=_reseeded(start.spec, seed), step=start.step)
    return spec.model_copy(update={"seed": seed, "continues": start})
