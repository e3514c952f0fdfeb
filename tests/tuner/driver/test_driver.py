"""The driver between a conductor and workers that only note what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.simulated_search import FACTS, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.driver.driver import Driver, SearchHalted
from tuner.driver.view import SilentView
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journal import Journal, read_journal
from tuner.journal.repeat import repeat, restored_decisions
from tuner.workers.watchdog import Watchdog


class Told:
    """Notes the calls that it gets; `remote` as actors have it."""

    problem = None  # of the record

    def __init__(self, calls: list[tuple[Any, ...]], name: str = "") -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Any:
        if name == "remote":
            return lambda *arguments: self._calls.append((self._name, *arguments))
        return Told(self._calls, name)

    def __call__(self, *arguments: Any) -> None:
        self._calls.append((self._name, *arguments))


class Words(SilentView):
    """A view that keeps what it was told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def phase(self, message: str) -> None:
        self.words.append(message)

    def event(self, row: Trial, message: str) -> None:
        self.words.append(f"{row.number}: {message}")


class Place:
    """A driver and what surrounds it."""

    def __init__(self, folder: Path, conductor: Conductor, *, in_order: bool = True) -> None:
        self.journal = Journal.open(folder / "lm-1")
        self.worker_calls: list[tuple[Any, ...]] = []
        self.tracker_calls: list[tuple[Any, ...]] = []
        self.view = Words()
        self.interrupt: Callable[[], None] = lambda: None
        if not self.journal.events:
            self.journal.append(SearchBegun(conductor.space, "", FACTS))
        self.journal.append(SessionBegun({}, 2, in_order))
        self.driver = Driver(
            conductor,
            self.journal,
            Told(self.tracker_calls),  # type: ignore[arg-type]
            self.view,
            [Told(self.worker_calls)],
            {"torch": "2.13.0"},
            in_order=in_order,
            check_interrupt=lambda: self.interrupt(),
            watchdog=Watchdog([]),
        )

    def told(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.worker_calls if call[0] == name]

    def report(self, number: int) -> bool:
        """The next report of a trial."""
        row = self.driver.conductor.board.trials[number]
        step = next(s for s in row.spec.report_steps if s > row.step)
        return self.driver.take(number, trained(row, step))


@pytest.fixture
def conductor(tmp_path: Path) -> Conductor:
    return Conductor(space_of(tmp_path, "trials: 6, sampler: random"), FACTS, 2)


@pytest.fixture
def place(tmp_path: Path, conductor: Conductor) -> Iterator[Place]:
    place = Place(tmp_path, conductor)
    yield place
    place.journal.close()


def test_driver_hands_out_jobs_and_lets_the_expected_report_through(place: Place) -> None:
    driver = place.driver
    driver.begin()
    first, second = driver.next_job(), driver.next_job()
    assert first is not None
    assert second is not None
    assert (first["number"], first["after"], first["source"]) == (0, 0, None)
    assert second["number"] == 1
    assert driver.next_job() is None
    assert not driver.is_over
    driver.client_is_up(0)
    assert place.told("allow") == []  # the other client has not started
    driver.client_is_up(1)
    # who comes for the expected job need not wait for another event
    assert place.told("allow")[0] == ("0", driver.conductor.board.trials[0].spec.report_steps[0])
    assert place.report(0)
    rows = driver.conductor.board.trials
    assert place.told("allow")[-1] == ("1", rows[1].spec.report_steps[0])
    assert place.told("acknowledge") == [("0", rows[0].step)]


def test_driver_journals_before_it_acts(place: Place, tmp_path: Path) -> None:
    driver = place.driver
    driver.begin()
    kinds = [e.kind for e in read_journal(tmp_path / "lm-1")]
    assert kinds == ["search", "session", "trial", "trial"]
    # nobody has come for a job yet, but workers begin
    assert [call[:2] for call in place.worker_calls] == [("start", "0"), ("start", "1")]
    driver.next_job()
    place.report(0)
    assert [e.kind for e in read_journal(tmp_path / "lm-1")][-1] == "report"


def test_driver_orders_what_its_clients_will_ask_for(place: Place) -> None:
    driver = place.driver
    driver.begin()
    for order in place.told("start"):
        job = driver.next_job()
        assert job is not None
        assert order == (
            str(job["number"]), job["spec"], job["after"], job["source"], job["reports"],
        )  # fmt: skip
    driver.client_is_up(0)
    driver.client_is_up(1)
    driver.fail(0, "the worker died")
    assert [order[0] for order in place.told("start")] == ["0", "1", "2"]
    driver.halt("interrupted")
    driver.fail(1, "the worker died")
    assert len(place.told("start")) == 3, "a search that halts begins with nothing"


def test_driver_ignores_a_report_of_a_client_that_was_given_up(place: Place) -> None:
    driver = place.driver
    driver.begin()
    driver.next_job()
    driver.next_job()
    driver.fail(1, "the worker died")
    before = len(read_journal(place.journal.path.parent))
    assert not place.report(1)
    driver.fail(1, "again")
    assert len(read_journal(place.journal.path.parent)) == before
    assert driver.conductor.board.trials[1].outcome == "failed: the worker died"
    assert ("1", False, None) in place.told("stop")


def test_driver_parks_and_brings_back(place: Place) -> None:
    driver = place.driver
    driver.begin()
    resumed: list[dict[str, Any]] = []
    while not driver.is_over:
        while job := driver.next_job():
            if job["after"]:
                resumed.append(job)
        expected = driver.conductor.expected
        assert expected is not None
        place.report(expected[0])
    driver.close()
    assert all(job["source"] == [str(job["number"]), job["after"]] for job in resumed)
    kept = {int(number): keep for number, keep, _ in place.told("stop")}
    board = driver.conductor.board
    assert all(kept[r.number] for r in board.trials.values() if r.has_finished)
    assert all(row.outcome for row in board.trials.values())
    ended = [call[1:3] for call in place.tracker_calls if call[0] == "end_trial"]
    assert {number for number, _ in ended} == set(board.trials)


def test_driver_halts_once_nothing_more_can_report(place: Place) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    driver = place.driver
    driver.begin()
    driver.next_job()
    driver.next_job()
    driver.tick()
    place.interrupt = interrupt
    driver.tick()
    assert driver.halted == "interrupted"
    assert "Ctrl-C again stops at once" in place.view.words[-1]
    assert not place.report(0)  # taken, and it goes no further
    driver.tick()
    assert not place.report(1)
    with pytest.raises(SearchHalted):
        driver.tick()
    assert driver.is_over
    assert driver.next_job() is None
    driver.close()
    ended = {call[1]: call[2] for call in place.tracker_calls if call[0] == "end_trial"}
    assert ended[0] == "interrupted"
    assert all(keep for _, keep, _ in place.told("stop"))


def test_driver_goes_on_where_the_journal_ends(
    tmp_path: Path, conductor: Conductor, place: Place
) -> None:
    driver = place.driver
    driver.begin()
    for _ in range(5):
        while driver.next_job():
            pass
        expected = driver.conductor.expected
        assert expected is not None
        place.report(expected[0])
    expected = driver.conductor.expected
    place.journal.close()
    events = read_journal(tmp_path / "lm-1")
    again = Conductor(conductor.space, FACTS, 2, restored_decisions(events, lambda _: ()))
    repeat(again, events, "lm-1")
    assert again.expected == expected
    other = Place(tmp_path, again)
    other.driver.begin()
    jobs = [other.driver.next_job(), other.driver.next_job()]
    rows = again.board.trials
    for job in jobs:
        assert job is not None
        assert job["after"] == rows[job["number"]].step
        assert job["source"] == ([str(job["number"]), job["after"]] if job["after"] else None)
    caught_up = [call for call in other.tracker_calls if call[0] == "add_trial"]
    assert sum(len(call[3]) for call in caught_up) == 5
    kinds = [e.kind for e in read_journal(tmp_path / "lm-1")]
    assert kinds == [*(e.kind for e in events), "session"]
    other.journal.close()


def test_driver_takes_reports_as_they_come_if_told_so(tmp_path: Path, conductor: Conductor) -> None:
    place = Place(tmp_path, conductor, in_order=False)
    place.driver.begin()
    place.driver.next_job()
    place.driver.next_job()
    assert place.told("allow") == []
    place.driver.client_is_up(0)
    place.driver.client_is_up(1)
    assert {number for number, _ in place.told("allow")} == {"0", "1"}
    place.report(1)
    assert place.report(0)
    place.journal.close()


def test_driver_says_when_the_journal_cannot_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = place.driver
    driver.begin()
    driver.next_job()
    monkeypatch.setattr(place.journal, "problem", "cannot write the journal: no space left")
    monkeypatch.setattr(place.journal, "retry", lambda: None)
    driver.tick()
    driver.tick()
    assert place.view.words == ["cannot write the journal: no space left"]
    monkeypatch.setattr(place.journal, "problem", None)
    driver.tick()
    assert "can be written again" in place.view.words[-1]
