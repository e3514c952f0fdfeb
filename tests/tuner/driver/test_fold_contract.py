"""The fold of a journal has all that the conductor's board has, after every turn of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report
from tests.tuner.conductor.test_arms import SPACE as ARMS
from tests.tuner.conductor.test_cool_downs import TEXT as BUDGETS
from tests.tuner.driver.driven_search import Find, Session
from tests.tuner.simulated_search import SPACE, space_of, trained
from tuner.conductor.board import Board
from tuner.journal import journal as journal_module
from tuner.journal.edit_request import request_edit
from tuner.journal.fold import Search
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.space import SearchSpace

TEXTS = {
    "one budget": SPACE,
    "arms": ARMS,
    "budgets": BUDGETS.replace("confirm: off", "confirm: {top: 2, seeds: 2}"),
}
SEARCHES = [
    *(("one budget", f"scheduler: {name}") for name in SCHEDULERS),
    ("one budget", "scheduler: asha, asha: stop"),
    ("one budget", "scheduler: asha, sampler: random, patience: 3"),
    ("one budget", "scheduler: median, sampler: random, max_tokens: 100_000"),
    ("arms", "scheduler: asha"),
    ("budgets", "scheduler: none, sampler: random"),
    ("budgets", "scheduler: none, sampler: random, max_tokens: 60_000"),
]


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module.os, "fsync", lambda file: None)


def facts(board: Board) -> list[Any]:
    """Return what a board knows, as text: NaN is not equal to itself."""
    searched = board.searched
    trials = [
        (
            trial.number, trial.spec.hash, dict(trial.draw), trial.reports, trial.outcome,
            trial.is_paused, bool(trial.reused and trial.reports), trial.parent, trial.confirms,
            trial.is_whole, trial.tokens_trained, trial.is_searched and board.leads(trial),
            trial.is_searched and trial.reports and board.observation(trial),
        )
        for trial in board.trials.values()
    ]  # fmt: skip
    numbers = [
        [trial.number for trial in some]
        for some in (searched, board.branches, board.confirming, board.ranked, board.ended,
                     board.training, board.paused)
    ]  # fmt: skip
    best = [each and each.number for each in (board.best, board.best_finished, board.defaults)]
    expected = board._expected, board._tokens_to_confirm
    others = board.winner, board.num_trials, board.tokens, board.confirm, board.metric, expected
    return [repr(each) for each in (*trials, *numbers, best, *others)]


class Comparison:
    """A fold that takes the events of some sessions, and is compared with their conductors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._search: Search | None = None
        self._num_taken = 0

    def run(
        self, space: SearchSpace, slots: int, turns: int | None = None, find: Find = lambda h: ()
    ) -> Search:
        """Run a session; compare after each turn, and at its end with a fold of the file."""
        session = Session(self._folder, space, slots, find)

        def compare() -> None:
            session.driver._take_edits()
            self._compare(session)

        session.run(turns, compare)
        search, again = self._take(session), Search.of(session.end())
        assert again is not None
        assert facts(again.board) == facts(search.board)
        assert repr(again.confirmation) == repr(search.confirmation)
        if turns is None:  # of one that is interrupted, only the journal calls its trials so
            assert facts(search.board) == facts(session.conductor.board)
            assert repr(search.confirmation) == repr(session.conductor.confirmation)
        return search

    def _compare(self, session: Session) -> None:
        search, conductor = self._take(session), session.conductor
        if search.is_edited:  # its retrainings may be of former finalists
            search.board.winner = conductor.board.winner
        else:
            assert repr(search.confirmation) == repr(conductor.confirmation)
        assert facts(search.board) == facts(conductor.board)

    def _take(self, session: Session) -> Search:
        for entry in session.journal.entries[self._num_taken :]:
            self._search = Search.after(self._search, entry.event)
            self._num_taken += 1
        assert self._search is not None
        return self._search


@pytest.mark.parametrize(("text", "search"), SEARCHES)
def test_fold_of_a_journal_is_the_board_of_its_conductor(
    tmp_path: Path, text: str, search: str
) -> None:
    """Of a search that is interrupted twice, finishes, and is edited before and in a session."""
    space = space_of(tmp_path, f"trials: 6, {search}", TEXTS[text])
    first = Comparison(tmp_path / "lm-1")
    first.run(space, 3, turns=4)
    first.run(space, 3, turns=2)
    finished = first.run(space, 2)
    found = {trial.spec.hash: trial for trial in finished.board.searched[1:3]}

    def find(spec_hash: str) -> Sequence[Report]:
        trial = found.get(spec_hash)
        return [trained(trial, step) for step in trial.report_steps] if trial else ()

    reuses = Comparison(tmp_path / "lm-2").run(space, 2, find=find)
    assert [trial.number for trial in reuses.board.trials.values() if trial.reused]

    edited = space_of(tmp_path, f"trials: 9, {search}", TEXTS[text])
    more = first.run(edited, 3, turns=3)
    assert more.is_edited
    if not SCHEDULERS[space.search.scheduler].is_population:
        most = space_of(tmp_path, f"trials: 12, {search}", TEXTS[text])
        request_edit(tmp_path / "lm-1", most, "")
    first.run(edited, 3)
