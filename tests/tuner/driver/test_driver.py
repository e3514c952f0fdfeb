"""The driver between a conductor and workers that only record their calls."""

from __future__ import annotations

import dataclasses
import errno
import math
import random
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.engine.report import Status
from tests.tuner.conductor.test_cool_downs import SEARCH, TEXT
from tests.tuner.driver.driven_search import Recorder, ScriptedWatchdog, Setting, decisions
from tests.tuner.simulated_search import FACTS, SPACE, outcomes, space_of, trained
from tests.tuner.workers.scripted_workers import Clock
from tuner.conductor.clock import SECONDS, TOKENS
from tuner.conductor.conductor import Conductor
from tuner.conductor.outcome import INTERRUPTED
from tuner.driver import driver as driver_module
from tuner.driver.driver import SearchHalted
from tuner.errors import Replaced
from tuner.journal import journal as journal_module
from tuner.journal.edit_request import edit_requests, request_edit
from tuner.journal.events import (
    NodeLost,
    SearchEdited,
    SearchStalled,
    SessionEnded,
    TrialBegun,
)
from tuner.journal.follower import Projection
from tuner.journal.journal import read_journal
from tuner.journal.repeat import repeat, restored_decisions
from tuner.lease.folder import FolderLeases, newest
from tuner.lease.holder import Holder
from tuner.lease.stop_request import StopRequest, request_stop
from tuner.workers.assignment import Assignment
from tuner.workers.batch import Failure, ReportBatch
from tuner.workers.watchdog import WorkerChange, WorkerEvent


@pytest.fixture
def conductor(tmp_path: Path) -> Conductor:
    return Conductor(space_of(tmp_path, "trials: 6, sampler: random"), FACTS, 2)


@pytest.fixture
def setting(tmp_path: Path, conductor: Conductor) -> Iterator[Setting]:
    setting = Setting(tmp_path, conductor)
    yield setting
    setting.journal.close()


def test_driver_takes_reports_in_the_order_of_the_clocks(setting: Setting) -> None:
    """A trial that is ahead trains on; what it reported is dropped if a decision pauses it."""
    driver = setting.driver
    driver.begin()
    first, second = setting.running().values()
    assert (first.number, first.after, first.source) == (0, 0, None)
    assert second.number == 1
    assert first.segment != second.segment
    assert not driver.is_over
    trials = driver.conductor.board.trials
    driver.record([(0, setting.batch(1, 1))])
    assert not trials[1].reports
    assert sorted(setting.running()) == [0, 1]
    assert setting.report(0)
    assert [len(trials[n].reports) for n in (0, 1)] == [1, 1]
    assert trials[1].is_paused
    assert sorted(setting.running()) == [0, 2]
    assert setting.calls("prune_checkpoints") == [(str(n), trials[n].step) for n in (0, 1)]


def test_driver_takes_a_failure_in_its_turn_and_a_report_once(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    trials = driver.conductor.board.trials
    setting.fail(1, "out of memory")
    assert trials[1].outcome is None
    batch = setting.batch(0)
    driver.record([(0, batch), (0, batch)])
    assert trials[1].outcome == "failed: out of memory"
    assert len(trials[0].reports) == 1


def test_driver_journals_before_it_acts(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also several reports that come together: one write of the journal, then the orders."""
    driver, journal = setting.driver, setting.journal
    lengths: list[tuple[int, int]] = []
    send = driver._orders.send
    monkeypatch.setattr(
        driver._orders,
        "send",
        lambda: (
            lengths.append((len(setting.worker_calls), len(read_journal(journal.path.parent)))),
            send(),
        ),
    )
    driver.begin()
    assert [e.event for e in read_journal(tmp_path / "lm-1")] == [
        "search", "session", "trial", "trial",
    ]  # fmt: skip
    assert lengths == [(0, 4)]
    before = len(setting.worker_calls)
    driver.record([(0, setting.batch(0, 1))])
    assert lengths[1] == (before, 7)
    assert [e.event for e in read_journal(tmp_path / "lm-1")][4:] == ["report", "report", "trial"]
    assert len(setting.worker_calls) > before


def test_driver_fills_the_slot_of_a_trial_that_cannot_be_trained(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    setting.fail(0, "out of memory")
    assert driver.conductor.board.trials[0].outcome == "failed: out of memory"
    assert [started.number for (started,) in setting.calls("start")] == [0, 1, 2]
    driver.halt("interrupted")
    setting.fail(2, "out of memory")
    assert driver.conductor.board.trials[2].has_failed
    assert len(setting.calls("start")) == 3, "a halted search starts nothing"


def test_driver_that_was_replaced_orders_nothing(setting: Setting, tmp_path: Path) -> None:
    """Its workers delete no checkpoint, and its followers hear of nothing."""
    driver = setting.driver
    driver.begin()
    setting.report(0)
    data = setting.journal.path.read_bytes()
    FolderLeases(tmp_path / "lm-1").create(Holder.me(epoch=2))
    feed = setting.journal.feed()
    before = (*setting.worker_calls,), feed.read()
    assert before[1]
    for act in (lambda: setting.report(0), lambda: setting.fail(0, "it died"), driver.tick):
        with pytest.raises(Replaced):
            act()
    assert ((*setting.worker_calls,), feed.read()) == (before[0], [])
    assert setting.journal.path.read_bytes() == data
    setting.journal._waiting.clear()  # the fixture closes it


def test_driver_ignores_news_of_an_assignment_that_was_stopped(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    late = setting.batch(0)
    failure = ReportBatch(failures=(Failure(setting.running()[0].segment, "0", "again"),))
    setting.fail(0, "out of memory")
    before = len(setting.events)
    driver.record([(0, late), (0, failure)])
    assert len(setting.events) == before
    assert driver.conductor.board.trials[0].outcome == "failed: out of memory"
    assert [(trial, keep) for trial, _, keep in setting.calls("stop")] == [("0", False)]


def test_a_report_after_the_pause_of_its_trial_is_not_taken(
    tmp_path: Path, conductor: Conductor
) -> None:
    """A worker sends what comes after the pause; a resumed trial sends it again."""
    setting = Setting(tmp_path, conductor, in_order=False)
    driver = setting.driver
    driver.begin()
    board = driver.conductor.board
    setting.report(0)
    driver.record([(0, setting.batch(1, 1))])
    assert [trial.number for trial in board.paused] == [1]
    assert [r.step for r in board.trials[1].reports] == board.trials[1].report_steps[:1]
    setting.journal.close()


def test_driver_pauses_and_resumes_trials(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    setting.run()
    resumed = [started for (started,) in setting.calls("start") if started.after]
    assert resumed
    assert all(each.source == (each.trial_id, each.after) for each in resumed)
    assert setting.calls("end_waiting") == [()], "the clients may return"
    kept = {int(number): keep for number, _, keep in setting.calls("stop")}
    board = driver.conductor.board
    assert all(kept[trial.number] for trial in board.trials.values() if trial.has_finished)
    outcomes = {number: trial.outcome for number, trial in board.trials.items()}
    assert all(outcomes.values())
    setting.journal.append(SessionEnded("finished"))
    ended = setting.search.board.trials
    assert {number: trial.outcome for number, trial in ended.items()} == outcomes


def test_driver_halts_when_no_trial_can_report(setting: Setting) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    driver = setting.driver
    driver.begin()
    driver.tick()
    setting.interrupt = interrupt
    driver.tick()
    assert driver.halted == "interrupted"
    assert "Ctrl-C again stops at once" in setting.texts[-1]
    assert not setting.report(0)  # the report is recorded, but the trial does not continue
    driver.tick()
    assert not setting.report(1)
    with pytest.raises(SearchHalted):
        driver.tick()
    assert setting.running() == {}
    driver.close()
    setting.journal.append(SessionEnded("interrupted"))
    assert setting.search.board.trials[0].outcome == INTERRUPTED
    assert all(keep for _, _, keep in setting.calls("stop"))


def test_after_sigterm_the_reports_under_way_have_a_second(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray job stop` and `docker stop` kill soon afterwards."""
    driver, clock = setting.driver, Clock()
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    driver.begin()
    driver.halt("interrupted", signal.SIGTERM)
    assert setting.texts[-1].startswith("ended by SIGTERM")
    clock.now += 0.9
    driver.tick()
    clock.now += 0.2
    with pytest.raises(SearchHalted):
        driver.tick()


@pytest.fixture
def faults(setting: Setting) -> ScriptedWatchdog:
    setting.driver._watchdog = dog = ScriptedWatchdog()  # type: ignore[assignment]
    return dog


LOST = WorkerChange(0, WorkerEvent.LOST, "the worker died")
BACK = WorkerChange(0, WorkerEvent.BACK)


def test_trials_of_a_worker_that_died_go_on_from_their_last_reports(
    setting: Setting, faults: ScriptedWatchdog
) -> None:
    driver = setting.driver
    driver.begin()
    setting.report(0)
    late = setting.batch(0)
    before = setting.running()
    faults.changes = [LOST]
    driver.tick()
    assert setting.running() == before, "there is no process to start them in"
    faults.changes = [BACK]
    driver.tick()
    step = driver.conductor.board.trials[0].step
    again = setting.running()
    assert (again[0].after, again[0].source) == (step, ("0", step))
    assert (again[1].after, again[1].source) == (0, None), "it had no report"
    assert all(again[n].segment > before[n].segment for n in (0, 1))
    events = len(setting.events)
    driver.record([(0, late)])
    assert len(setting.events) == events, "of the process before"
    assert setting.report(0)
    assert "worker 0 has restarted" in setting.texts


def test_reports_that_came_early_outlive_their_worker(
    setting: Setting, faults: ScriptedWatchdog
) -> None:
    driver = setting.driver
    driver.begin()
    early = setting.batch(1)
    driver.record([(0, early)])
    step = early.reports[0][1].step
    faults.changes = [LOST, BACK]
    driver.tick()
    again = setting.running()[1]
    assert (again.after, again.source) == (step, ("1", step))
    setting.report(0)
    assert [r.step for r in driver.conductor.board.trials[1].reports] == [step]


@pytest.mark.parametrize("broken", ["", "the engine broke: ValueError: no luck"])
def test_a_trial_fails_when_its_worker_has_died_three_times(
    setting: Setting, faults: ScriptedWatchdog, broken: str
) -> None:
    """A report resets the count."""
    driver = setting.driver
    driver.begin()
    trials = driver.conductor.board.trials
    for _ in range(2):
        faults.changes = [LOST, BACK]
        driver.tick()
    setting.report(0)
    for _ in range(2):
        if broken:
            driver.record([(0, ReportBatch(broken=broken))])
        faults.changes = [LOST, BACK]
        driver.tick()
        reason = broken or "the worker died"
        assert trials[1].outcome == (
            f"failed: the worker of trial 1 died 3 times before its next report: {reason}"
        )
    assert trials[0].outcome is None
    faults.changes = [LOST, BACK]
    driver.tick()
    assert trials[0].outcome is not None


def test_trials_of_a_worker_that_does_not_come_back_fail(
    setting: Setting, faults: ScriptedWatchdog
) -> None:
    driver = setting.driver
    driver.begin()
    faults.changes = [LOST, WorkerChange(0, WorkerEvent.GONE, "cannot be restarted: no memory")]
    driver.tick()
    assert driver.conductor.board.trials[0].outcome == (
        "failed: the worker of trial 0 cannot be restarted: no memory; it died of: the worker died"
    )
    assert sorted(setting.running()) == [2, 3]


def test_trials_of_a_missing_worker_go_on_in_another(tmp_path: Path, conductor: Conductor) -> None:
    """They are not charged with it, and new trials go to the worker when it is back."""
    setting = Setting(tmp_path, conductor, in_order=False, num_workers=2)
    driver = setting.driver
    driver._watchdog = dog = ScriptedWatchdog()  # type: ignore[assignment]
    driver.begin()
    assert {n: each.worker for n, each in setting.running().items()} == {0: 0, 1: 1}
    setting.report(0)
    late = setting.batch(0)
    step = driver.conductor.board.trials[0].step
    dog.changes = [LOST, WorkerChange(0, WorkerEvent.MISSING)]
    driver.tick()
    moved = setting.running()[0]
    assert (moved.worker, moved.after, moved.source) == (1, step, ("0", step))
    assert "worker 0 is missing; its trials go on in other workers" in setting.texts
    events = len(setting.events)
    driver.record([(0, late)])
    assert len(setting.events) == events
    setting.fail(1, "out of memory")
    assert setting.running()[2].worker == 1
    dog.changes = [WorkerChange(0, WorkerEvent.BACK, lost_node=True)]
    driver.tick()
    setting.fail(0, "out of memory")
    assert setting.running()[3].worker == 0
    setting.journal.close()


def test_trial_of_another_kind_of_node_records_it(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the journal, from which its run in MLflow is made."""
    environments: list[Mapping[str, str] | None] = [None, {"device": "another"}]
    other: Any = Recorder([])
    other.other_of = lambda worker: environments.pop(0)
    setting.driver._environments = other
    setting.driver.begin()
    trials = setting.search.trials.values()
    assert [trial.environment for trial in trials] == [{}, {"device": "another"}]


def test_search_waits_for_a_worker_if_none_is_left(
    setting: Setting, faults: ScriptedWatchdog
) -> None:
    """However often its nodes are lost, as preempted ones are: no trial is charged with it."""
    driver = setting.driver
    driver.begin()
    for _ in range(5):
        faults.changes = [
            LOST, WorkerChange(0, WorkerEvent.MISSING),
            WorkerChange(0, WorkerEvent.BACK, lost_node=True),
        ]  # fmt: skip
        driver.tick()
    assert sorted(setting.running()) == [0, 1], "the node was lost, not the trial's fault"
    assert "worker 0 is missing; no other worker is left" in setting.texts
    for _ in range(3):  # on nodes that live
        faults.changes = [LOST, BACK]
        driver.tick()
    assert sorted(setting.running()) == [2, 3]


def test_view_hears_how_many_workers_are_up(setting: Setting, faults: ScriptedWatchdog) -> None:
    driver = setting.driver
    driver.begin()
    faults.up, faults.changes = {0}, [WorkerChange(0, WorkerEvent.UP)]
    driver.tick()
    assert setting.texts[-1] == "1 of 1"
    faults.up, faults.changes = set(), [LOST]
    driver.tick()
    assert setting.texts[-1] == "0 of 1"
    faults.changes = [WorkerChange(0, WorkerEvent.MISSING)]
    driver.tick()
    assert setting.texts.count("0 of 1") == 1
    faults.up, faults.changes = {0}, [WorkerChange(0, WorkerEvent.BACK, lost_node=True)]
    driver.tick()
    assert setting.texts[-1] == "1 of 1"


def test_lost_node_is_noted_for_messages(setting: Setting, faults: ScriptedWatchdog) -> None:
    setting.driver.begin()
    faults.changes = [LOST, WorkerChange(0, WorkerEvent.NODE_LOST, node=("f00", "b (10.0.0.2)"))]
    before = time.time_ns() // 1_000_000
    setting.driver.tick()
    assert "node b (10.0.0.2) is lost" in setting.texts
    (event,) = (event for event in setting.events if isinstance(event, NodeLost))
    assert (event.node_id, event.name) == ("f00", "b (10.0.0.2)")
    assert before <= event.time_ms <= time.time_ns() // 1_000_000


def test_driver_that_stood_still_says_so_once(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, clock = setting.driver, Clock()
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    driver.begin()
    clock.now += 100  # Ray Tune is imported before the first tick
    driver.tick()
    clock.now += 59
    driver.tick()
    assert not [text for text in setting.texts if "stood still" in text]
    clock.now += 121
    driver.tick()
    driver.tick()
    (text,) = (text for text in setting.texts if "stood still" in text)
    assert text.startswith("this driver stood still for 2:01, ")


def test_silence_is_noted_once_until_the_next_report(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a quarter of an hour, and ten times the longest time between two reports."""
    driver, clock = setting.driver, Clock()
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    driver._reported_at = clock()
    driver.begin()

    def stalls() -> list[float]:
        return [event.seconds for event in setting.events if isinstance(event, SearchStalled)]

    clock.now += 200
    setting.report(0)
    clock.now += 1999
    driver.tick()
    assert stalls() == []
    clock.now += 2
    driver.tick()
    driver.tick()
    assert stalls() == [2001]
    setting.report(1)
    clock.now += 2001
    driver.tick()
    assert stalls() == [2001], "the longest time between two reports is longer now"


def test_trials_of_a_worker_that_is_gone_go_on_in_others(
    tmp_path: Path, conductor: Conductor
) -> None:
    """They fail when all workers are gone; until then they wait for those that are missing."""
    setting = Setting(tmp_path, conductor, in_order=False, num_workers=2)
    driver = setting.driver
    driver._watchdog = dog = ScriptedWatchdog()  # type: ignore[assignment]
    driver.begin()
    gone = [WorkerChange(n, WorkerEvent.GONE, "cannot be restarted: no torch") for n in (0, 1)]
    dog.changes = [gone[0]]
    driver.tick()
    dog.changes = [gone[0], WorkerChange(1, WorkerEvent.MISSING), gone[0]]
    driver.tick()
    assert {n: each.worker for n, each in setting.running().items()} == {0: 1, 1: 1}
    texts = [text for text in setting.texts if text.startswith("worker")]
    assert texts == [
        "worker 0 is gone: it cannot be restarted: no torch; its trials go on in other workers",
        "worker 1 is missing; no other worker is left",
    ]
    dog.changes = [gone[1]]
    driver.tick()
    assert driver.conductor.board.trials[1].has_failed
    setting.journal.close()


def test_worker_on_a_node_that_cannot_train_is_not_used(
    tmp_path: Path, conductor: Conductor
) -> None:
    setting = Setting(tmp_path, conductor, in_order=False, num_workers=2)
    driver = setting.driver
    driver._watchdog = dog = ScriptedWatchdog()  # type: ignore[assignment]
    driver.begin()
    dog.changes = [WorkerChange(1, WorkerEvent.MISSING, "node b has torch 1.0")]
    driver.tick()
    assert {each.worker for each in setting.running().values()} == {0}
    dog.changes = [WorkerChange(1, WorkerEvent.MISSING, "node c has torch 1.0")]
    driver.tick()
    assert setting.texts[-3:] == [
        "worker 1 is not used: node b has torch 1.0; its trials go on in other workers",
        "0 of 2",
        "worker 1 is not used: node c has torch 1.0",
    ]
    setting.journal.close()


def test_trials_fail_whose_client_fails(setting: Setting) -> None:
    driver = setting.driver
    driver.begin()
    driver.fail_trials([1], "another client")
    assert sorted(setting.running()) == [0, 1]
    driver.fail_trials([0], "no memory")
    assert driver.conductor.board.trials[1].outcome == "failed: no memory"
    assert sorted(setting.running()) == [2, 3]


def test_driver_resumes_where_the_journal_ends(
    tmp_path: Path, conductor: Conductor, setting: Setting
) -> None:
    driver = setting.driver
    driver.begin()
    for _ in range(5):
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
    assert len(other.running()) == 2
    for resumed in other.running().values():
        assert resumed.after == trials[resumed.number].step
        assert resumed.source == ((resumed.trial_id, resumed.after) if resumed.after else None)
    assert sum(len(trial.reports) for trial in other.search.board.trials.values()) == 5
    kinds = [e.event for e in read_journal(tmp_path / "lm-1")]
    assert kinds == [*(e.event for e in events), "session"]
    other.journal.close()


def test_driver_without_order_takes_reports_as_they_come(
    tmp_path: Path, conductor: Conductor
) -> None:
    setting = Setting(tmp_path, conductor, in_order=False)
    setting.driver.begin()
    setting.report(1)
    assert len(conductor.board.trials[1].reports) == 1
    assert setting.report(0)
    setting.journal.close()


def test_driver_reports_a_journal_that_cannot_be_written(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = setting.driver
    driver.begin()
    monkeypatch.setattr(setting.journal, "problem", "cannot write the journal: no space left")
    monkeypatch.setattr(setting.journal, "retry", lambda: None)
    driver.tick()
    driver.tick()
    assert setting.texts == ["cannot write the journal: no space left"]
    monkeypatch.setattr(setting.journal, "problem", None)
    driver.tick()
    assert "can be written again" in setting.texts[-1]


def test_driver_reports_a_follower_that_cannot_write(tmp_path: Path, conductor: Conductor) -> None:
    follower: Any = SimpleNamespace(projection=Projection(), problem="MLflow lacks part of lm-1")
    setting = Setting(tmp_path, conductor, followers=[follower])
    setting.driver.begin()
    setting.driver.tick()
    setting.driver.tick()
    assert setting.texts == ["MLflow lacks part of lm-1"]
    follower.problem = None
    setting.driver.tick()
    setting.driver.tick()
    assert setting.texts[1:] == ["a projection can be written again; nothing is lost"]
    setting.journal.close()


def test_followers_hear_of_an_event_that_is_on_the_disk(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the events of one decision together, and in order."""
    feed = setting.journal.feed()
    feed.read()
    early: list[int] = []
    monkeypatch.setattr(journal_module.os, "fsync", lambda file: early.append(len(feed.read())))
    setting.driver.begin()
    assert [entry.event.event for entry in feed.read()] == ["trial", "trial"]
    setting.report(0)
    assert [entry.event.event for entry in feed.read()] == ["report"]
    setting.fail(1, "the worker died")
    assert [entry.event.event for entry in feed.read()] == ["failure", "trial"]
    setting.driver.halt("interrupted")
    setting.driver.close()
    assert [entry.event.event for entry in feed.read()] == ["message"]
    assert early == [0, 0, 0, 0]


def test_search_runs_without_followers(setting: Setting, conductor: Conductor) -> None:
    setting.driver.begin()
    setting.run()
    assert all(trial.outcome for trial in conductor.board.trials.values())


@pytest.mark.parametrize("request_", [StopRequest.SOON, StopRequest.NOW])
def test_driver_ends_when_another_process_asks(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: StopRequest
) -> None:
    driver, clock, folder = setting.driver, Clock(), tmp_path / "lm-1"
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    driver._looked_at = clock()
    driver.begin()
    holder = newest(folder)
    assert holder is not None
    request_stop(folder, holder, request_)
    clock.now += 1.1  # it looks once a second
    if request_ is StopRequest.NOW:
        with pytest.raises(SearchHalted):
            driver.tick()
    else:
        driver.tick()
        assert setting.report(0) is setting.report(1) is False
        with pytest.raises(SearchHalted):
            driver.tick()
    assert driver.halted == "stopped"
    assert "'tuner stop' was called" in setting.texts[-1 if request_ is StopRequest.NOW else -3]


def test_driver_goes_on_with_another_space_when_another_process_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But with what is not allowed never, and with other workers only in the next session."""
    search, clock = "trials: %d, sampler: random, scheduler: none", Clock()
    space = space_of(tmp_path, search % 2, SPACE.replace("{top: 2, seeds: 2}", "off"))
    spaces = {name: space_of(tmp_path, search % number, SPACE.replace("{top: 2, seeds: 2}", text))
              for name, number, text in (("more", 3, "off"), ("fewer", 1, "off"),
                                         ("workers", 3, "off\nengine: {workers: 3}"))}  # fmt: skip
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    setting = Setting(tmp_path, Conductor(space, FACTS, 3))
    driver, folder = setting.driver, tmp_path / "lm-1"
    driver._looked_at = clock()
    driver.begin()
    assert [*setting.running()] == [0, 1]
    requests = [request_edit(folder, spaces[name], name) for name in ("more", "workers", "fewer")]
    (folder / "edits" / "0.json").write_text("{}")
    driver.tick()
    assert all(request.exists() for request in requests), "it looks once a second"
    clock.now += 1.1
    driver.tick()
    clock.now += 1.1
    driver.tick()
    assert edit_requests(folder) == [requests[1]]
    assert [*setting.running()] == [0, 1, 2]
    edit, trial = [event for event in setting.events if event.event in {"edit", "trial"}][-2:]
    assert isinstance(edit, SearchEdited)
    assert (edit.space, edit.space_text, edit.is_live) == (spaces["more"], "more", True)
    assert isinstance(trial, TrialBegun)
    assert trial.number == 2
    refused = [text for text in setting.texts if "refused" in text]
    assert "0.json is no journal of a search" in refused[0]
    assert "fewer search.trials (1 instead of 3)" in refused[1]
    assert len(refused) == 2
    assert "the search goes on with another search.trials" in setting.texts
    setting.run()
    assert outcomes(driver.conductor) == outcomes(setting.search)
    setting.journal.close()


def test_edit_waits_while_the_disk_is_full_and_the_search_ends(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, folder = setting.driver, tmp_path / "lm-1"
    driver.begin()
    request = request_edit(folder, space_of(tmp_path, "trials: 7, sampler: random"), "")
    with monkeypatch.context() as patched:
        patched.setattr(journal_module.os, "pwrite", no_space)
        driver._take_edits()
        assert request.exists(), "only the memory of this process has the edit"
    driver._take_edits()
    assert request.exists()
    setting.journal._next_try = 0.0
    setting.journal.retry()
    driver._take_edits()
    assert not request.exists()
    assert setting.search.space.search.trials == 7
    assert sum(isinstance(event, SearchEdited) for event in setting.events) == 1
    later = request_edit(folder, space_of(tmp_path, "trials: 8, sampler: random"), "")
    driver.halt("interrupted")
    driver._take_edits()
    assert later.exists(), "the next session takes it"


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_driver_ends_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(driver_module.time, "monotonic", clock)
    space = space_of(tmp_path, "trials: 6, sampler: random, max_seconds: 10m")
    setting = Setting(tmp_path, Conductor(space, FACTS, 2))
    setting.driver.begin()
    clock.now += 599
    setting.driver.tick()
    assert setting.driver.halted is None
    clock.now += 2
    setting.driver.tick()
    assert setting.driver.halted == "max_seconds"
    assert setting.texts[-1] == "the time limit is reached: waiting for the reports under way"
    assert setting.report(0) is setting.report(1) is False
    with pytest.raises(SearchHalted):
        setting.driver.tick()
    setting.journal.close()


class Arrivals:
    """Workers of random speeds: the next report comes from any trial in training.

    Args:
        setting: the driver and its workers.
        draw: random numbers.
        deaths: share of the turns after which all workers die, twice at most.
    """

    def __init__(self, setting: Setting, draw: random.Random, deaths: float = 0.0) -> None:
        self._setting, self._draw, self._deaths, self._left = setting, draw, deaths, 2
        self._steps: dict[int, int] = {}  # segment → step of its newest report
        self._ended: set[int] = set()  # segments

    def run(self) -> list[str]:
        """Run the search; return its decisions, as text."""
        driver = self._setting.driver
        driver._watchdog = dog = ScriptedWatchdog()  # type: ignore[assignment]
        driver.begin()
        while not driver.is_over:
            running = self._setting.running().values()
            ready = [each for each in running if each.segment not in self._ended]
            driver.record([(0, self._news(self._draw.choice(ready)))])
            if self._left and self._draw.random() < self._deaths:
                self._left -= 1
                dog.changes = [LOST, BACK]
                driver.tick()
        driver.close()
        self._setting.journal.close()
        return decisions(self._setting.events)

    def _news(self, assignment: Assignment) -> ReportBatch:
        number, segment = assignment.number, assignment.segment
        trial = self._setting.driver.conductor.board.trials[number]
        before = self._steps.get(segment, assignment.after)
        is_complete = before == trial.report_steps[-1]  # its worker died before it was its turn
        if number == 4 or is_complete:
            self._ended.add(segment)
            reason = "no report is left" if is_complete else "out of memory"
            return ReportBatch(failures=(Failure(segment, str(number), reason),))
        report = trained(trial, next(s for s in trial.report_steps if s > before))
        self._steps[segment] = report.step
        if report.status is not Status.TRAINING:
            self._ended.add(segment)
        return ReportBatch(((segment, report),))


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "clock"), [("asha", SECONDS), ("pbt", TOKENS)])
def test_search_in_order_does_not_depend_on_timing(
    tmp_path: Path, scheduler: str, clock: str
) -> None:
    """Its journal decides the same, line by line, whichever reports come first and whoever dies."""
    space = space_of(tmp_path, f"trials: 8, sampler: random, scheduler: {scheduler}")
    journals = []
    for seed in range(3):
        conductor = Conductor(space, FACTS, 3, clock=clock)
        setting = Setting(tmp_path / str(seed), conductor)
        journals.append(Arrivals(setting, random.Random(seed), deaths=0.03 * seed).run())
    assert any(line.startswith("TrialFailed") for line in journals[0])
    assert journals[1:] == journals[:1] * 2


@pytest.mark.slow
def test_search_without_order_depends_on_timing(tmp_path: Path) -> None:
    """So that the test above can fail."""
    space = space_of(tmp_path, "trials: 8, sampler: random")
    settings = [
        Setting(tmp_path / str(seed), Conductor(space, FACTS, 3), in_order=False)
        for seed in range(2)
    ]
    journals = [Arrivals(s, random.Random(n)).run() for n, s in enumerate(settings)]
    assert journals[0] != journals[1]


def test_driver_keeps_the_states_of_a_diverged_trunk_until_its_branches_begin(
    tmp_path: Path,
) -> None:
    """In one lane the branch waits; a killed driver that comes back begins it likewise."""
    conductor = Conductor(space_of(tmp_path, SEARCH, TEXT), FACTS, 1)
    setting = Setting(tmp_path, conductor)
    setting.driver.begin()
    assert setting.report(0)
    trunk = conductor.board.trials[0]
    ((segment, report),) = setting.batch(0).reports
    diverged = dataclasses.replace(report, status=Status.DIVERGED, val_loss=math.nan)
    setting.driver.record([(0, ReportBatch(((segment, diverged),)))])
    assert trunk.outcome == "diverged"
    assert setting.calls("stop") == [("0", segment, True)]
    (branch,) = setting.running().values()
    assert (branch.number, branch.after, branch.source) == (1, 0, ("0", report_step := 4))
    assert [r.step for r in branch.reports] == [report_step]
    setting.report(1)
    setting.journal.close()

    events = read_journal(tmp_path / "lm-1")
    again = Conductor(conductor.space, FACTS, 1, restored_decisions(events, lambda _: ()))
    repeat(again, events, "lm-1")
    resumed = Setting(tmp_path, again)
    resumed.driver.begin()
    (branch,) = resumed.running().values()
    assert (branch.number, branch.after, branch.source) == (1, report_step, ("0", report_step))
    resumed.journal.close()
