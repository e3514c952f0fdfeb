"""Results of searches that never ran: a conductor decides, a formula says what trials report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.engine.report import Report
from tests.tuner.simulated_search import FACTS, Simulation, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.conductor.verdict import verdict_of
from tuner.results.advice import advise
from tuner.results.result import SearchResult
from tuner.space.space import SearchSpace

SPACE = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  T_warmup: {fraction_of: T_total, uniform: [0, 0.2]}
  λ: {log: [1e-3, 1]}
  B: {choice: [8, 16]}
  optimizer: {choice: [adamw, momentum]}
  momentum: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
model: {context_length: 32, tied_embeddings: {choice: [true, false]}}
budget: {tokens: 27_000, reports: 9}
confirm: {top: 2, seeds: 3}
search: {%s, seed: 3}
"""
ARMS = SPACE.replace("confirm: {top: 2, seeds: 3}", "compare: {by: optimizer}")
STARTED = 1_795_276_800_000  # 2026-11-21 16:00 UTC, in milliseconds
Train = Callable[[Trial, int], Report]


def conducted(space: SearchSpace, train: Train = trained, most: int | None = None) -> Conductor:
    """A search by four slots; a simulation takes a second for each event.

    Args:
        space: what is searched.
        train: what a trial reports at a step.
        most: reports after which the search is left; None: it runs to its end.
    """
    simulation = Simulation(Conductor(space, FACTS, 4), train=train)
    count = 0
    while (most is None or count < most) and simulation.step():
        count += 1
    if most is None:
        simulation.conductor.close()
    for row in simulation.conductor.board.trials.values():
        row.times = [STARTED + time for time in row.times]
    return simulation.conductor


def result_of(space: SearchSpace, train: Train = trained, **more: Any) -> SearchResult:
    """What such a search found; `most` as for `conducted`, all else are fields of the result."""
    conductor = conducted(space, train, more.pop("most", None))
    board = conductor.board
    assert board.best is not None
    given: dict[str, Any] = {
        "name": "made-up-1",
        "space": space,
        "metric": board.metric,
        "trials": board.searched,
        "confirming": board.confirming,
        "best": board.best,
        "run_ids": {number: f"{number:032x}" for number in board.trials},
        "experiment_id": "1",
        "run_id": "f" * 32,
        "wall_seconds": 65.0,
        "training_share": 0.97,
        "started": STARTED,
        "environment": {"device": "cpu: one of them", "torch": "2.13.0"},
        "space_text": "hyperparameters:\n  α_max: {log: [1e-4, 1e-1]}\n",
        "confirmation": conductor.confirmation,
        "verdict": verdict_of(board, space, conductor.confirmation),
        "limit": conductor.limit,
        "advice": advise(space, board.searched, "made-up-1"),
    }
    return SearchResult(**(given | more))


def result_in(
    folder: Path, search: str = "trials: 24", text: str = SPACE, **more: Any
) -> SearchResult:
    """The same from the text of a space."""
    return result_of(space_of(folder, search, text), **more)
