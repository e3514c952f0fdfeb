from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import FINISHED, INTERRUPTED, Outcome
from tuner.errors import TunerError
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialEnded,
    TrialFailed,
)
from tuner.journal.journaled_search import JournaledSearch
from tuner.space.space import SearchSpace


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return space_of(tmp_path, "trials: 12")


def folded(*events: Event) -> JournaledSearch:
    timed = [replace(event, time_ms=1000 * i) for i, event in enumerate(events, start=1)]
    search = JournaledSearch.of(timed)
    assert search is not None
    return search


def report(step: int) -> Report:
    return Report("0", Status.TRAINING, step, 32 * step, 2.0, 2.0, 1.0, 0.01)


def test_journaled_search_has_what_a_search_began_with(space: SearchSpace) -> None:
    simulation = Simulation(Conductor(space, FACTS, 3))
    session = SessionBegun({"torch": "2.13.0"}, 3, in_order=True)
    search = JournaledSearch.of_name([*simulation.events, session], "lm-1")
    assert search.space == space
    assert (search.first_space, search.sessions[0].slots) == (space, 3)
    assert search.facts == FACTS
    assert search.session == session
    assert not search.is_edited


@pytest.mark.parametrize("events", [[], [SessionBegun({}, 1, in_order=True)]])
def test_journaled_search_needs_a_beginning(events: Sequence[Event]) -> None:
    assert JournaledSearch.of(events) is None
    with pytest.raises(TunerError, match=r"lm-1 has not begun: .*tuner search .*--name lm-1"):
        JournaledSearch.of_name(events, "lm-1")


def test_journaled_search_knows_the_space_of_its_first_session(
    tmp_path: Path, space: SearchSpace
) -> None:
    """An edit before the first session replaces the space; a later one does not."""
    more, most = (space_of(tmp_path, f"trials: {n}") for n in (20, 30))
    search = folded(
        SearchBegun(space, "a", FACTS), SearchBegun(more, "b", FACTS),
        SessionBegun({}, 2, in_order=True), SearchBegun(most, "c", FACTS),
        SessionBegun({}, 4, in_order=True),
    )  # fmt: skip
    assert (search.first_space, search.space, search.space_text) == (more, most, "c")
    assert [session.slots for session in search.sessions] == [2, 4]
    assert search.is_edited
    assert (search.started_ms, search.newest_ms) == (1000, 5000)


def test_journaled_search_sums_the_time_of_its_sessions(
    space: SearchSpace, make_spec: MakeSpec
) -> None:
    """The hours between two sessions do not count, nor what is written between them."""
    begun, session = SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True)
    trial, end = TrialBegun(0, {}, make_spec()), SessionEnded("interrupted")
    events = [
        (1, begun), (11, session), (12, trial), (22, end),
        (2_000, begun), (2_010, session), (2_040, TrialEnded(0, INTERRUPTED)),  # then it was killed
        (9_000, begun), (9_010, session), (9_020, end), (9_500, TrialEnded(0, INTERRUPTED)),
    ]  # fmt: skip
    search = JournaledSearch.of([replace(event, time_ms=1000 * s) for s, event in events])
    assert search is not None
    assert search.seconds == (22 - 1) + (2_040 - 2_010) + (9_020 - 9_010)


def test_journaled_search_follows_its_trials(space: SearchSpace, make_spec: MakeSpec) -> None:
    begun = [TrialBegun(number, {}, make_spec(seed=number)) for number in range(4)]
    search = folded(
        SearchBegun(space, "", FACTS), SessionBegun({"torch": "1"}, 2, in_order=True),
        begun[0], begun[1], Reported(0, report(4)), Reported(1, report(4)),
        TrialEnded(0, FINISHED), TrialEnded(1, INTERRUPTED),
        SessionBegun({"torch": "2"}, 2, in_order=True), begun[2], begun[3],
        TrialFailed(2, "no memory"), TrialEnded(3, Outcome.stopped(1)), Reported(3, report(8)),
    )  # fmt: skip
    outcomes = [trial.outcome for trial in search.trials.values()]
    assert outcomes == [FINISHED, None, Outcome.failed("no memory"), None]
    written = [trial.written_outcome for trial in search.trials.values()]
    assert written == [FINISHED, INTERRUPTED, None, Outcome.stopped(1)]
    assert [t.environment["torch"] for t in search.trials.values()] == ["1", "1", "2", "2"]
    assert [t.time_ms for t in search.trials.values()] == [7000, 8000, 12000, 14000]
    assert [event.number for event in search.reports] == [0, 1, 3]
    assert [event.report.step for event in search.trials[3].reports] == [8]


def test_journaled_search_has_an_end_until_it_is_resumed(space: SearchSpace) -> None:
    begun = SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True)
    end = SessionEnded("interrupted")
    assert folded(*begun).end is None
    assert folded(*begun, end).end == replace(end, time_ms=3000)
    assert folded(*begun, end, begun[1]).end is None
