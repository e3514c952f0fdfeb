from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import FINISHED, INTERRUPTED, Outcome
from tuner.errors import JournalError, TunerError
from tuner.journal.events import (
    Event,
    MessageSent,
    Reported,
    SearchBegun,
    SearchEdited,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialFailed,
    TrialResumed,
    WorkersChanged,
)
from tuner.journal.fold import Search
from tuner.schedulers.scheduler import Decision
from tuner.space.space import SearchSpace


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return space_of(tmp_path, "trials: 12")


def folded(*events: Event) -> Search:
    timed = [replace(event, time_ms=1000 * i) for i, event in enumerate(events, start=1)]
    search = Search.of(timed)
    assert search is not None
    return search


def report(step: int, status: Status = Status.TRAINING) -> Report:
    return Report("0", status, step, 32 * step, 2.0, 2.0, 1.0, 0.01)


def test_search_has_what_it_began_with(space: SearchSpace) -> None:
    simulation = Simulation(Conductor(space, FACTS, 3))
    session = SessionBegun({"torch": "2.13.0"}, 3, in_order=True)
    search = Search.of_name([*simulation.events, session], "lm-1")
    assert search.space == space
    assert (search.first_space, search.sessions[0].slots) == (space, 3)
    assert search.facts == FACTS
    assert search.session == session
    assert not search.is_edited


def test_search_needs_a_beginning() -> None:
    assert Search.of([]) is None
    with pytest.raises(TunerError, match=r"lm-1 has not begun: .*tuner search .*--name lm-1"):
        Search.of_name([], "lm-1")


def test_search_knows_the_space_of_its_first_session(tmp_path: Path, space: SearchSpace) -> None:
    """An edit before the first session replaces the space; a later one does not."""
    more, most = (space_of(tmp_path, f"trials: {n}") for n in (20, 30))
    events = (
        SearchBegun(space, "a", FACTS), SearchEdited(more, "b"),
        SessionBegun({}, 2, in_order=True), SearchEdited(most, "c"),
        SessionBegun({}, 4, in_order=True),
    )  # fmt: skip
    assert not folded(*events[:3]).is_edited
    search = folded(*events)
    assert (search.first_space, search.space, search.space_text) == (more, most, "c")
    assert search.board.num_trials == 30
    assert [session.slots for session in search.sessions] == [2, 4]
    assert search.is_edited
    assert (search.begun.time_ms, search.newest_ms, search.num_events) == (1000, 5000, 5)


def test_search_sums_the_time_of_its_sessions(space: SearchSpace, make_spec: MakeSpec) -> None:
    """The hours between two sessions do not count, nor what is written between them."""
    session, edit = SessionBegun({}, 2, in_order=True), SearchEdited(space, "")
    trial, end = TrialBegun(0, {}, make_spec()), SessionEnded("interrupted")
    events = [
        (1, SearchBegun(space, "", FACTS)), (11, session), (12, trial), (22, end),
        (2_000, edit), (2_010, session), (2_040, Reported(0, report(4))),  # then it was killed
        (9_000, edit), (9_010, session), (9_020, end), (9_500, edit),
    ]  # fmt: skip
    search = Search.of([replace(event, time_ms=1000 * s) for s, event in events])
    assert search is not None
    assert search.seconds == (22 - 1) + (2_040 - 2_010) + (9_020 - 9_010)


def test_summary_of_a_session_may_know_of_more_time(space: SearchSpace) -> None:
    """Of the first one, which read its data before the search began."""
    end = SessionEnded("finished", {"wall_seconds": 60.0})
    assert folded(SearchBegun(space, "", FACTS), SessionBegun({}, 2, True), end).seconds == 60.0


def test_search_follows_its_trials(space: SearchSpace, make_spec: MakeSpec) -> None:
    begun = [TrialBegun(number, {}, make_spec(seed=number)) for number in range(6)]
    final = report(12, Status.FINISHED)
    events = (
        SearchBegun(space, "", FACTS), SessionBegun({"torch": "1"}, 2, in_order=True),
        begun[0], begun[1], Reported(0, report(4)), Reported(1, report(4), Decision.PAUSE),
        Reported(0, final, Decision.STOP, FINISHED), begun[2], SessionEnded("interrupted"),
        SessionBegun({"torch": "2"}, 2, in_order=True),
        replace(begun[3], environment={"torch": "3"}), TrialFailed(2, "no memory"), TrialResumed(1),
        Reported(1, report(8)), begun[4], Reported(4, report(4), Decision.STOP, Outcome.stopped(1)),
        replace(begun[5], same_as=3),
    )  # fmt: skip

    def outcomes(*more: Event) -> list[Outcome | None]:
        return [trial.outcome for trial in folded(*events, *more).board.trials.values()]

    paused = folded(*events[:8]).board
    assert [trial.number for trial in paused.paused] == [1]
    assert [trial.number for trial in paused.training] == [2]
    ended = [t.outcome for t in folded(*events[:9]).board.trials.values()]
    assert ended == [FINISHED, INTERRUPTED, INTERRUPTED]
    failed, stopped, same = Outcome.failed("no memory"), Outcome.stopped(1), Outcome.same_as(3)
    assert outcomes() == [FINISHED, None, failed, None, stopped, same]
    search = folded(*events)
    assert search.board.paused == []
    assert [t.environment["torch"] for t in search.trials.values()] == [
        "1",
        "1",
        "1",
        "3",
        "2",
        "2",
    ]
    assert [t.changed_ms for t in search.trials.values()] == [
        7000, 14000, 12000, 11000, 16000, 17000,
    ]  # fmt: skip
    assert [[r.step for r in t.reports] for t in search.board.trials.values()] == [
        [4, 12], [4, 8], [], [], [4], [],
    ]  # fmt: skip
    assert search.board.trials[1].times == [6000, 14000]
    interrupted = [FINISHED, INTERRUPTED, failed, INTERRUPTED, stopped, same]
    assert outcomes(SessionEnded("failed")) == interrupted


def test_paused_trials_of_a_finished_search_count_as_stopped(
    space: SearchSpace, make_spec: MakeSpec
) -> None:
    """Until it is edited: then its conductor has them paused, and may resume them."""
    events = (
        SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True),
        TrialBegun(0, {}, make_spec()), Reported(0, report(4), Decision.PAUSE),
        SessionEnded("finished", weights={0: "ab"}),
    )  # fmt: skip
    search = folded(*events)
    assert search.board.trials[0].outcome == Outcome.stopped(1)
    assert search.trials[0].weights == "ab"
    for event in (SearchEdited(space, ""), SessionBegun({}, 2, in_order=True)):
        search.apply(event)
    assert (search.board.ended, [t.number for t in search.board.paused]) == ([], [0])
    search.apply(TrialResumed(0))
    assert [trial.number for trial in search.board.training] == [0]
    assert search.trials[0].weights is None


def test_search_has_an_end_until_it_is_resumed(space: SearchSpace) -> None:
    begun = SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True)
    end = SessionEnded("interrupted")
    assert folded(*begun).end is None
    assert folded(*begun, end).end == replace(end, time_ms=3000)
    assert folded(*begun, end, begun[1]).end is None


def test_search_knows_how_many_workers_were_counted_last(space: SearchSpace) -> None:
    begun = SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True)
    workers = WorkersChanged(1, 2)
    assert folded(*begun).workers is None
    assert folded(*begun, workers, MessageSent("a")).workers == replace(workers, time_ms=3000)
    assert folded(*begun, workers, SessionEnded("failed")).workers is None
    assert folded(*begun, workers, begun[1]).workers is None


def test_events_that_contradict_each_other_are_refused(
    space: SearchSpace, make_spec: MakeSpec
) -> None:
    label = next(p.label for p in space.searched if p.distribution.kind == "log")
    search, session = SearchBegun(space, "", FACTS), SessionBegun({}, 2, in_order=True)
    trial, end = TrialBegun(0, {label: 0.01}, make_spec()), SessionEnded("finished", best=0)
    folded(search, session, trial, Reported(0, report(4)), end)
    events: tuple[tuple[list[Event], str], ...] = (
        ([session, search], "event 1: the search has not begun"),
        ([search, search], "event 2: the search begins again"),
        ([search, Reported(0, report(4))], "event 2: trial 0 has not begun"),
        ([search, TrialFailed(0, "x")], "trial 0 has not begun"),
        ([search, session, TrialResumed(0)], "event 3: trial 0 has not begun"),
        ([search, end], "trial 0 has not begun"),
        ([search, replace(end, best=None, kept=(3,))], "trial 3 has not begun"),
        ([search, replace(end, best=None, weights={4: "ab"})], "trial 4 has not begun"),
        ([search, trial, trial], "event 3: trial 0 begins after 1 others"),
        ([search, replace(trial, number=1)], "trial 1 begins after 0 others"),
        ([search, replace(trial, parent=7)], "trial 7 has not begun"),
        ([search, replace(trial, confirms=7)], "trial 7 has not begun"),
        ([search, replace(trial, same_as=7)], "trial 7 has not begun"),
        ([search, replace(trial, draw={label: "x"})], f"{label} is 'x'"),
    )
    for order, problem in events:
        with pytest.raises(JournalError, match=f"contradicts itself at .*{problem}; it was edited"):
            Search.of(order)
