"""The steps of a start: their order, what they wait for, and what is left when one fails."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.simulated_search import FACTS
from tuner.driver import search as search_module
from tuner.driver import start as start_module
from tuner.driver.interrupt import Interrupts
from tuner.driver.search import resume, search
from tuner.driver.start import (
    Start,
    begin_record,
    compile_early,
    measure_dtype,
)
from tuner.driver.steps import Step, take_steps
from tuner.errors import Interrupted, JournalError, Replaced, StoreError, TunerError
from tuner.home.home import Home
from tuner.journal.events import SearchBegun
from tuner.journal.journal import Journal, read_journal
from tuner.lease.folder import FolderLeases
from tuner.lease.holder import Holder
from tuner.lease.stop_request import StopRequest, request_stop
from tuner.space.data_facts import DataFacts
from tuner.space.proposals import NOTHING
from tuner.space.space import SearchSpace
from tuner.tracking import projection as projection_module
from tuner.tracking.tags import Tag


def started(interrupts: Interrupts | None = None) -> Any:
    interrupts = interrupts or Interrupts()
    said: list[str] = []
    return SimpleNamespace(
        interrupts=interrupts, check=interrupts.check, began=0.0, said=said, say_debug=said.append
    )


def test_steps_are_taken_in_order_and_say_what_they_took() -> None:
    taken: list[str] = []
    start = started()
    take_steps([Step(name, lambda _, name=name: taken.append(name)) for name in "ab"], start)
    assert taken == ["a", "b"]
    texts = [re.sub(r"\d+\.\d", "N", text) for text in start.said]
    assert texts == ["step a: N s, at N s", "step b: N s, at N s"]


def test_signal_ends_a_start_between_two_steps() -> None:
    taken: list[str] = []
    interrupts = Interrupts()
    steps = [
        Step("data", lambda _: interrupts.handle(signal.SIGTERM, None)),
        Step("record", lambda _: taken.append("record")),
    ]
    with pytest.raises(Interrupted) as raised:
        take_steps(steps, started(interrupts))
    assert (raised.value.signal, taken) == (signal.SIGTERM, [])


@pytest.mark.parametrize("breaks_a_rule", [False, True])
def test_dtype_is_measured_once_whatever_is_estimated(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch, breaks_a_rule: bool
) -> None:
    """An estimate of too few tokens has no specification: then the data themselves are awaited."""
    measured: list[DataFacts] = []
    ended: list[Any] = []

    def begin(space: SearchSpace, facts: DataFacts, file: Path) -> Any:
        measured.append(facts)
        return SimpleNamespace(end=None)

    estimate = replace(FACTS, train_size=2) if breaks_a_rule else FACTS
    monkeypatch.setattr("tuner.space.estimate.estimated_facts", lambda space: estimate)
    monkeypatch.setattr("tuner.workers.products.begin_measurement", begin)
    monkeypatch.setattr(start_module, "begin_compilation", lambda *_: None)
    start: Any = SimpleNamespace(
        space=space, home=home, recorded=None, address=None, facts=replace(FACTS, end_of_text=7),
        check_over=None, ray=SimpleNamespace(callback=ended.append),
    )  # fmt: skip
    compile_early(start)
    assert measured == [] if breaks_a_rule else [estimate]
    measure_dtype(start)
    assert measured == [start.facts if breaks_a_rule else estimate]
    assert len(ended) == 1, "the process ends with Ray"


# what is left -------------------------------------------------------------------------------


def note_begun(start: Start) -> None:
    """The first half of the last step."""
    if start.recorded is None:
        start.journal.append(SearchBegun(start.space, "", FACTS))


def failing(error: BaseException) -> Callable[[Start], None]:
    def fail(start: Start) -> None:
        raise error

    return fail


def steps_of(monkeypatch: pytest.MonkeyPatch, *runs: Callable[[Start], None]) -> None:
    steps = [Step(str(number), run) for number, run in enumerate(runs)]
    monkeypatch.setattr(search_module, "STEPS", steps)


ERRORS: Sequence[BaseException] = (
    TunerError("no such data"), KeyboardInterrupt(), Interrupted(signal.SIGTERM),
)  # fmt: skip


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("has_begun", [False, True])
def test_search_that_did_not_begin_frees_its_name(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch,
    name: str | None, error: BaseException, has_begun: bool,
) -> None:  # fmt: skip
    """Also one whose first event is in the journal, and which the store has not."""
    steps_of(monkeypatch, *([note_begun] if has_begun else []), failing(error))
    with pytest.raises(type(error)) as raised:
        search(space, name=name, home=home)
    assert list(home.search("").iterdir()) == []
    assert getattr(raised.value, "search", None) is None


@pytest.mark.parametrize("request_", [StopRequest.SOON, StopRequest.NOW])
def test_stop_ends_a_start(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch, request_: StopRequest
) -> None:
    """Between two steps and while a step waits, without a trial and without a failure."""
    monkeypatch.setattr(start_module, "LOOK_SECONDS", 0.0)
    taken: list[str] = []

    def ask(start: Start) -> None:
        request_stop(start.folder, Holder.me(start.journal.epoch), request_)

    steps_of(monkeypatch, ask, lambda start: taken.append("too many"))
    with pytest.raises(Interrupted) as raised:
        search(space, name="mine", home=home)
    assert (raised.value.exit_status, taken) == (0, [])
    assert not home.search("mine").exists()


def test_search_of_a_killed_driver_that_did_not_begin_is_begun_in_its_folder(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for torn in (None, b"", b'{"event":"sea'):
        home.search("mine").mkdir(parents=True, exist_ok=True)
        if torn is not None:
            (home.search("mine") / "journal.jsonl").write_bytes(torn)
        with pytest.raises(TunerError, match="mine has not begun"):
            resume("mine", home=home)
        seen: list[Any] = []
        steps_of(
            monkeypatch, lambda start, seen=seen: seen.append(start.recorded), failing(ERRORS[0])
        )
        with pytest.raises(TunerError, match="no such data"):
            search(space, name="mine", home=home)
        assert seen == [None]
        assert not home.search("mine").exists()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("is_new_command", [False, True])
def test_resumed_search_is_never_deleted(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch,
    error: BaseException, is_new_command: bool,
) -> None:  # fmt: skip
    journal = Journal.open(home.search("mine"))
    journal.append(SearchBegun(space, "", FACTS))
    journal.close()
    data = journal.path.read_bytes()
    steps_of(monkeypatch, note_begun, failing(error))
    with pytest.raises(type(error)) as raised:
        search(space, name="mine", home=home) if is_new_command else resume("mine", home=home)
    assert journal.path.read_bytes() == data
    if isinstance(error, KeyboardInterrupt):
        assert getattr(raised.value, "search", None) == "mine", "the user hears how to go on"


def test_search_that_another_driver_took_over_is_not_deleted(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not begin here, and perhaps began there."""

    def lose(start: Start) -> None:
        FolderLeases(start.folder).create(Holder.me(epoch=2))
        start.journal.check_epoch()

    steps_of(monkeypatch, lose)
    with pytest.raises(Replaced):
        search(space, name="mine", home=home)
    assert home.search("mine").is_dir()


def test_search_whose_record_fails_frees_its_name_and_one_that_is_resumed_does_not(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that begins is in the journal before it is in the store, which may refuse it."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise StoreError("the store is read-only")

    monkeypatch.setattr(projection_module, "Runs", refuse)

    def prepared(start: Start) -> None:
        start.start, start.facts, start.corpus = None, FACTS, None  # type: ignore[assignment]
        start.proposals = NOTHING
        start.team = SimpleNamespace(devices=SimpleNamespace(trial_bytes=0))  # type: ignore[assignment]

    def meet_refusal(start: Start) -> None:
        assert len(start.journal.entries) == 1
        with pytest.raises(StoreError):  # in the thread of the follower, as the first trials train
            start.mlflow.send()
        start.mlflow.check_open()

    steps_of(monkeypatch, prepared, begin_record, meet_refusal)
    with pytest.raises(StoreError, match="read-only"):
        search(space, name="mine", home=home)
    assert not home.search("mine").exists()
    steps_of(monkeypatch, prepared, begin_record)
    journal = Journal.open(home.search("mine"))
    journal.append(SearchBegun(space, "", FACTS))
    journal.close()
    with pytest.raises(StoreError, match="read-only"):
        search(space, name="mine", home=home)
    assert len(read_journal(home.search("mine"))) == 1


def test_record_of_another_journal_is_refused(
    home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal was cut since its digest was recorded."""
    journal = Journal.open(home.search("mine"))
    journal.append(SearchBegun(space, "", FACTS))
    journal.close()
    previous = SimpleNamespace(tags={Tag.JOURNAL: "0" * 32})
    opened = SimpleNamespace(
        open=lambda: None, runs=SimpleNamespace(previous=previous), is_open=True
    )
    monkeypatch.setattr(projection_module.MlflowProjection, "of", lambda *_, **__: opened)

    def prepared(start: Start) -> None:
        start.corpus = None  # type: ignore[assignment]

    steps_of(monkeypatch, prepared, begin_record)
    with pytest.raises(JournalError, match="mine is not the one that was recorded"):
        search(space, name="mine", home=home)
    assert len(read_journal(home.search("mine"))) == 1
    previous.tags[Tag.JOURNAL] = journal.digest
    starts: list[Start] = []
    steps_of(monkeypatch, prepared, begin_record, starts.append, failing(ERRORS[0]))
    with pytest.raises(TunerError, match="no such data"):
        search(space, name="mine", home=home)
    assert starts[0].mlflow is opened  # type: ignore[comparison-overlap]
