"""The driver between a conductor and workers that only record their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report
from tests.tuner.simulated_search import FACTS, space_of, trained
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.driver.driver import Driver, SearchHalted
from tuner.driver.observer import SearchObserver, TrackerObserver, ViewObserver
from tuner.driver.view import SilentView
from tuner.errors import Replaced
from tuner.journal.epoch import Epoch, newest
from tuner.journal.events import SearchBegun, SessionBegun
from tuner.journal.journal import Journal, read_journal
from tuner.journal.repeat import repeat, restored_decisions
from tuner.workers.assignment import Assignment
from tuner.workers.watchdog import Watchdog


class Recorder:
    """Records its calls, with and without `remote`."""

    problem = None  # as of a tracker

    def __init__(self, calls: list[tuple[Any, ...]], name: str = "") -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Any:
        if name == "remote":
            return lambda *arguments: self._calls.append((self._name, *arguments))
        return Recorder(self._calls, name)

    def __call__(self, *arguments: Any) -> None:
        self._calls.append((self._name, *arguments))


class TextView(SilentView):
    """A view that keeps its messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, message: str) -> None:
        self.texts.append(message)

    def event(self, trial: Trial, message: str) -> None:
        self.texts.append(f"{trial.number}: {message}")


class Setting:
    """A driver with its journal, and with workers, tracker and view that record their calls."""

    def __init__(
        self,
        folder: Path,
        conductor: Conductor,
        *,
        in_order: bool = True,
        observers: Sequence[SearchObserver] = (),
    ) -> None:
        self.journal = Journal.open(folder / "lm-1")
        self.worker_calls: list[tuple[Any, ...]] = []
        self.tracker_calls: list[tuple[Any, ...]] = []
        self.view = TextView()
        self.interrupt: Callable[[], None] = lambda: None
        if not self.journal.events:
            self.journal.append(SearchBegun(conductor.space, "", FACTS))
        self.journal.append(SessionBegun({}, 2, in_order))
        tracker: Any = Recorder(self.tracker_calls)
        self.driver = Driver(
            conductor,
            self.journal,
            [Recorder(self.worker_calls)],
            [
                TrackerObserver(tracker, {"torch": "2.13.0"}),
                ViewObserver(self.view, conductor.board.metric),
                *observers,
            ],
            in_order=in_order,
            check_interrupt=lambda: self.interrupt(),
            watchdog=Watchdog([]),
        )

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.worker_calls if call[0] == name]

    def report(self, number: int) -> bool:
        """Pass the next report of a trial to the driver."""
        trial = self.driver.conductor.board.trials[number]
        step = next(s for s in trial.spec.report_steps if s > trial.step)
        return self.driver.record_report(number, trained(trial, step))


@pytest.fixture
def conductor(tmp_path: Path) -> Conductor:
    return Conductor(space_of(tmp_path, "trials: 6, sampler: random"), FACTS, 2)


@pytest.fixture
def setting(tmp_path: Path, conductor: Conductor) -> Iterator[Setting]:
    setting = Setting(tmp_path, conductor)
    yield setting
    setting.journal.close()


def test_driver_hands_out_assignments_and_releases_the_expected_report(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    first, second = driver.next_assignment(), driver.next_assignment()
    assert first is not None
    assert second is not None
    assert (first.number, first.after, first.source) == (0, 0, None)
    assert second.number == 1
    assert driver.next_assignment() is None
    assert not driver.is_over
    assert setting.calls("release_reports") == []  # `release_reports` has not been called
    driver.release_reports()
    assert setting.calls("release_reports")[0] == (
        "0",
        driver.conductor.board.trials[0].spec.report_steps[0],
    )
    assert setting.report(0)
    trials = driver.conductor.board.trials
    assert setting.calls("release_reports")[-1] == ("1", trials[1].spec.report_steps[0])
    assert setting.calls("prune_checkpoints") == [("0", trials[0].step)]


def test_driver_journals_before_it_acts(setting: Setting, tmp_path: Path) -> None:
    driver = setting.driver
    driver.begin()
    kinds = [e.kind for e in read_journal(tmp_path / "lm-1")]
    assert kinds == ["search", "session", "trial", "trial"]
    # no client has asked for an assignment yet, but the workers start
    calls = [(name, started.trial_id) for name, started in setting.worker_calls]
    assert calls == [("start", "0"), ("start", "1")]
    driver.next_assignment()
    setting.report(0)
    assert [e.kind for e in read_journal(tmp_path / "lm-1")][-1] == "report"


def test_driver_starts_the_assignments_of_its_clients(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    for (started,) in setting.calls("start"):
        assert driver.next_assignment() is started
    driver.release_reports()
    driver.fail(0, "the worker died")
    assert [started.number for (started,) in setting.calls("start")] == [0, 1, 2]
    driver.halt("interrupted")
    driver.fail(1, "the worker died")
    assert len(setting.calls("start")) == 3, "a halted search starts nothing"


def test_driver_that_was_replaced_orders_nothing(setting: Setting, tmp_path: Path) -> None:
    """Its workers delete no checkpoint, and its observers hear of nothing."""
    driver = setting.driver
    driver.begin()
    driver.next_assignment()
    driver.release_reports()
    setting.report(0)
    data = setting.journal.path.read_bytes()
    Epoch.claim(tmp_path / "lm-1", newest(tmp_path / "lm-1")).end()
    before = (*setting.worker_calls,), (*setting.tracker_calls,)
    for act in (lambda: setting.report(0), lambda: driver.fail(0, "it died"), driver.tick):
        with pytest.raises(Replaced):
            act()
    assert ((*setting.worker_calls,), (*setting.tracker_calls,)) == before
    assert setting.journal.path.read_bytes() == data
    setting.journal._waiting.clear()  # the fixture closes it


def test_driver_ignores_a_report_of_a_client_that_was_given_up(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    driver.next_assignment()
    driver.next_assignment()
    driver.fail(1, "the worker died")
    before = len(read_journal(setting.journal.path.parent))
    assert not setting.report(1)
    driver.fail(1, "again")
    assert len(read_journal(setting.journal.path.parent)) == before
    assert driver.conductor.board.trials[1].outcome == "failed: the worker died"
    assert ("1", False, None) in setting.calls("stop")


def test_driver_pauses_and_resumes_trials(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    resumed: list[Assignment] = []
    while not driver.is_over:
        while assignment := driver.next_assignment():
            if assignment.after:
                resumed.append(assignment)
        expected = driver.conductor.expected
        assert expected is not None
        setting.report(expected[0])
    driver.close()
    assert all(each.source == (each.trial_id, each.after) for each in resumed)
    kept = {int(number): keep for number, keep, _ in setting.calls("stop")}
    board = driver.conductor.board
    assert all(kept[trial.number] for trial in board.trials.values() if trial.has_finished)
    assert all(trial.outcome for trial in board.trials.values())
    ended = [call[1:3] for call in setting.tracker_calls if call[0] == "end_trial"]
    assert {number for number, _ in ended} == set(board.trials)


def test_driver_halts_when_no_trial_can_report(setting: Setting) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    driver = setting.driver
    driver.begin()
    driver.next_assignment()
    driver.next_assignment()
    driver.tick()
    setting.interrupt = interrupt
    driver.tick()
    assert driver.halted == "interrupted"
    assert "Ctrl-C again stops at once" in setting.view.texts[-1]
    assert not setting.report(0)  # the report is recorded, but the trial does not continue
    driver.tick()
    assert not setting.report(1)
    with pytest.raises(SearchHalted):
        driver.tick()
    assert driver.is_over
    assert driver.next_assignment() is None
    driver.close()
    ended = {call[1]: call[2] for call in setting.tracker_calls if call[0] == "end_trial"}
    assert ended[0] == "interrupted"
    assert all(keep for _, keep, _ in setting.calls("stop"))


def test_driver_resumes_where_the_journal_ends(
    tmp_path: Path, conductor: Conductor, setting: Setting
) -> None:
    driver = setting.driver
    driver.begin()
    for _ in range(5):
        while driver.next_assignment():
            pass
        expected = driver.conductor.expected
        assert expected is not None
        setting.report(expected[0])
    expected = driver.conductor.expected
    setting.journal.close()
    events = read_journal(tmp_path / "lm-1")
    again = Conductor(conductor.space, FACTS, 2, restored_decisions(events, lambda _: ()))
    repeat(again, events, "lm-1")
    assert again.expected == expected
    other = Setting(tmp_path, again)
    other.driver.begin()
    trials = again.board.trials
    for _ in range(2):
        resumed = other.driver.next_assignment()
        assert resumed is not None
        assert resumed.after == trials[resumed.number].step
        assert resumed.source == ((resumed.trial_id, resumed.after) if resumed.after else None)
    caught_up = [call for call in other.tracker_calls if call[0] == "add_trial"]
    assert sum(len(call[3]) for call in caught_up) == 5
    kinds = [e.kind for e in read_journal(tmp_path / "lm-1")]
    assert kinds == [*(e.kind for e in events), "session"]
    other.journal.close()


def test_driver_without_order_takes_reports_as_they_come(
    tmp_path: Path, conductor: Conductor
) -> None:
    setting = Setting(tmp_path, conductor, in_order=False)
    setting.driver.begin()
    setting.driver.next_assignment()
    setting.driver.next_assignment()
    assert setting.calls("release_reports") == []
    setting.driver.release_reports()
    assert {number for number, _ in setting.calls("release_reports")} == {"0", "1"}
    setting.report(1)
    assert setting.report(0)
    setting.journal.close()


def test_driver_reports_a_journal_that_cannot_be_written(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = setting.driver
    driver.begin()
    driver.next_assignment()
    monkeypatch.setattr(setting.journal, "problem", "cannot write the journal: no space left")
    monkeypatch.setattr(setting.journal, "retry", lambda: None)
    driver.tick()
    driver.tick()
    assert setting.view.texts == ["cannot write the journal: no space left"]
    monkeypatch.setattr(setting.journal, "problem", None)
    driver.tick()
    assert "can be written again" in setting.view.texts[-1]


class EventRecorder(SearchObserver):
    """Records the events of a search, each with the last event of the journal at its time."""

    def __init__(self, folder: Path) -> None:
        self.events: list[tuple[str, int, str]] = []
        self._folder = folder

    def _add(self, name: str, trial: Trial) -> None:
        self.events.append((name, trial.number, read_journal(self._folder)[-1].kind))

    def trial_restored(self, trial: Trial) -> None:
        self._add("restored", trial)

    def trial_started(self, trial: Trial, time_ms: int) -> None:
        self._add("started", trial)

    def reported(self, trial: Trial, report: Report, time_ms: int, *, leads: bool) -> None:
        self._add("leads" if leads else "reported", trial)

    def trial_ended(self, trial: Trial, outcome: str, time_ms: int) -> None:
        self._add(outcome, trial)

    def close(self) -> str:
        return "one trial is missing"


def test_driver_calls_observers_after_the_journal(tmp_path: Path, conductor: Conductor) -> None:
    recorder = EventRecorder(tmp_path / "lm-1")
    setting = Setting(tmp_path, conductor, observers=[recorder])
    setting.driver.begin()
    setting.driver.next_assignment()
    setting.driver.next_assignment()
    setting.report(0)
    setting.driver.fail(1, "the worker died")
    setting.driver.halt("interrupted")
    setting.driver.close()
    assert recorder.events[:5] == [
        ("started", 0, "trial"),
        ("started", 1, "trial"),
        ("reported", 0, "report"),
        ("failed: the worker died", 1, "outcome"),
        ("started", 2, "trial"),
    ]
    assert recorder.events[5:] == [("interrupted", n, "outcome") for n in (0, 2)]
    assert setting.view.texts[-1] == "one trial is missing"
    setting.journal.close()


def test_search_runs_without_observers(tmp_path: Path, conductor: Conductor) -> None:
    journal = Journal.open(tmp_path / "lm-1")
    driver = Driver(
        conductor,
        journal,
        [Recorder([])],
        in_order=True,
        check_interrupt=lambda: None,
        watchdog=Watchdog([]),
    )
    driver.begin()
    while not driver.is_over:
        while driver.next_assignment():
            pass
        expected = conductor.expected
        assert expected is not None
        driver.record_report(expected[0], trained(conductor.board.trials[expected[0]], expected[1]))
    driver.close()
    journal.close()
    assert all(trial.outcome for trial in conductor.board.trials.values())
