"""Trials that do not fit into memory: told by an event, never trained, and replaced by others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS, Simulation, outcomes, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import OutcomeKind
from tuner.journal.events import Event, TrialBegun, as_json, read_event
from tuner.journal.fold import Search
from tuner.journal.repeat import repeat, restored_decisions

MEMORY = 10**9
TEXT = """\
hyperparameters:
  α_max: {log: [1e-4, 1e-2]}
model: {context_length: 32, d_model: {choice: [16, 32, 4096]}}
budget: {tokens: 27_000, reports: 9}
search: {%s, seed: 3}
"""


def searched(folder: Path, search: str, memory: int = MEMORY, text: str = TEXT) -> Simulation:
    simulation = Simulation(
        Conductor(space_of(folder, search, text), FACTS, 2, memory_bytes=memory)
    )
    simulation.run()
    return simulation


def test_infeasible_trials_are_told_and_replaced(tmp_path: Path) -> None:
    simulation = searched(tmp_path, "trials: 12, sampler: random, scheduler: asha")
    board = simulation.conductor.board
    large = [trial for trial in board.searched if trial.draw["d_model"] == 4096]
    assert large
    assert all(trial.is_infeasible and not trial.reports for trial in large)
    assert len(board.searched) - len(large) == 12
    assert board.num_trials == len(board.trials)
    begun = [event for event in simulation.events if isinstance(event, TrialBegun)]
    assert {event.number for event in begun if event.infeasible} == {t.number for t in large}
    (reason,) = {event.infeasible for event in begun} - {""}
    assert reason.startswith("it needs about ")
    assert reason.endswith(" GB of memory, and there are 1.0 GB for each trial")
    assert board.observation(large[0]).state == "failed", "which is no bad loss"
    assert board.best is not None
    assert not board.best.is_infeasible
    free = searched(tmp_path, "trials: 12, sampler: random, scheduler: asha", memory=0)
    assert not any(trial.is_infeasible for trial in free.conductor.board.searched)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_journal_repeats_what_was_infeasible(tmp_path: Path, sampler: str) -> None:
    whole = searched(tmp_path, f"trials: 10, sampler: {sampler}, scheduler: asha")
    written: list[Event] = [read_event(as_json(event)) for event in whole.events]
    search = Search.of(written)
    assert search is not None
    told = {t.number: t.outcome for t in search.board.searched if t.is_infeasible}
    assert told
    assert told == {t.number: t.outcome for t in whole.conductor.board.searched if t.is_infeasible}
    assert search.board.num_trials == whole.conductor.board.num_trials
    space = whole.conductor.space
    for cut in range(3, len(written), 11):
        events = written[:cut]
        restored = restored_decisions(events, lambda _: ())
        conductor = Conductor(space, FACTS, 2, restored, memory_bytes=MEMORY)
        repeat(conductor, events, "again")
        assert outcomes(Simulation(conductor, events).run()) == outcomes(whole.conductor)
    # what the journal says is not decided again, by a version that predicts less
    conductor = Conductor(space, FACTS, 2, restored_decisions(written, lambda _: ()))
    repeat(conductor, written, "again")
    assert told == {t.number: t.outcome for t in conductor.board.searched if t.is_infeasible}


@pytest.mark.parametrize(
    ("search", "count"),
    [("trials: 6, sampler: random", 12), ("trials: 8, sampler: grid, scheduler: none", 4)],
)
def test_search_without_a_feasible_trial_ends(tmp_path: Path, search: str, count: int) -> None:
    text = TEXT.replace("16, 32, 4096", "4096, 8192").replace(
        "log: [1e-4, 1e-2]", "choice: [1e-3, 1e-2]"
    )
    conductor = searched(tmp_path, search, text=text).conductor
    kinds = {trial.outcome.kind for trial in conductor.board.searched if trial.outcome}
    assert kinds <= {OutcomeKind.INFEASIBLE, OutcomeKind.DUPLICATE}
    assert len(conductor.board.searched) == count
    assert conductor.is_over
