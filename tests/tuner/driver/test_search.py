"""The frame of a search: its name, and what is left to do when it has begun before."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.driver.test_start import failing, note_begun, steps_of
from tests.tuner.results.finished_search import result_in
from tests.tuner.simulated_search import FACTS, space_of
from tuner.driver import search as module
from tuner.driver import sync
from tuner.driver.search import resume, search
from tuner.driver.start import Start
from tuner.driver.view import SilentView
from tuner.errors import Interrupted, JournalError, JournalInUse, TunerError
from tuner.home.home import Home
from tuner.journal.events import Event, SearchBegun, SessionBegun, SessionEnded
from tuner.journal.journal import Journal, JournalTail
from tuner.journal.lines import Entry
from tuner.space.space import SearchSpace


class Texts(SilentView):
    """A view that keeps its messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, message: str) -> None:
        self.texts.append(message)


def record_it(start: Start) -> None:
    """What the last step does in the end."""
    note_begun(start)
    start.mlflow, start.receivers = SimpleNamespace(is_open=True), ()  # type: ignore[assignment]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a search is that runs a session, or is only read."""
    calls: list[str] = []
    result: Any = object()
    steps_of(monkeypatch, record_it)
    for owner, name in ((module, "run_session"), (module, "load_search"), (sync, "sync")):
        monkeypatch.setattr(
            owner, name, lambda *args, name=name, **options: calls.append(name) or result
        )
    return calls


def begun(home: Home, space: SearchSpace, *events: Event) -> None:
    with closing(Journal.open(home.search("mine"))) as journal:
        for event in (SearchBegun(space, "", FACTS), SessionBegun({}, 1, True), *events):
            journal.append(event)


def test_result_stays_when_the_journal_cannot_be_written(
    home: Home, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_in(tmp_path)
    steps_of(monkeypatch, record_it)
    monkeypatch.setattr(module, "run_session", lambda start: result)
    assert search(space, home=home) is result
    error = JournalError("cannot write the journal: No space left on device")

    def fail(start: Start) -> Any:
        close = start.journal.close

        def full() -> None:
            close()
            raise error

        monkeypatch.setattr(start.journal, "close", full)
        return result

    monkeypatch.setattr(module, "run_session", fail)
    monkeypatch.setattr(module, "_close", lambda *_: None)
    assert search(space, home=home).lost == str(error)


@pytest.mark.parametrize("name", [None, "mine"])
def test_name_of_a_recorded_search_is_not_taken_again(
    name: str | None, home: Home, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is in another home; the storage may have searches, too."""
    taken = name or f"{space.name}-1"
    monkeypatch.setattr(module, "recorded_names", lambda uri: {taken})
    if name is not None:
        with pytest.raises(TunerError, match=r"mine is recorded already, .* another home"):
            module._claim(name, "lm", home, None, lambda holder: None)
        assert not home.search("mine").exists()
        return
    monkeypatch.setattr(
        module, "Storage", lambda url: SimpleNamespace(names=lambda: [f"{space.name}-2"])
    )
    for url, number in ((None, 2), ("memory://lm", 3), (None, 4)):
        journal = module._claim(None, space.name, home, url, lambda holder: None)
        assert (journal.path.parent.name, journal.entries) == (f"{space.name}-{number}", [])
        journal.close()


def test_of_two_drivers_that_begin_a_search_one_does(home: Home) -> None:
    with closing(module._claim("mine", "lm", home, None, lambda holder: None)) as journal:
        assert journal.events == []
        with pytest.raises(JournalInUse):
            module._claim("mine", "lm", home, None, lambda holder: None)


@pytest.mark.parametrize(
    ("status", "trials", "expected", "texts"),
    [
        ("interrupted", 6, ["run_session"], []),
        ("interrupted", 9, ["run_session"], []),
        ("finished", 9, ["run_session"], []),
        (
            "finished",
            6,
            ["sync", "load_search"],
            ["mine has finished already: nothing is left to train"],
        ),
    ],
)
@pytest.mark.parametrize("is_new_command", [False, True])
def test_search_of_a_name_that_has_begun_goes_on(
    status: Any,
    trials: int,
    expected: list[str],
    texts: list[str],
    is_new_command: bool,
    tmp_path: Path,
    home: Home,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its journal is read once before it is claimed."""
    view, results, reads = Texts(), [], list[JournalTail]()
    begun(home, space_of(tmp_path, "trials: 6"), SessionEnded(status))
    read = JournalTail.read

    def counted(tail: JournalTail) -> list[Entry]:
        reads.append(tail)
        return read(tail)

    monkeypatch.setattr(JournalTail, "read", counted)
    space = space_of(tmp_path, f"trials: {trials}")
    options: Any = {"home": home, "view": view, "on_result": results.append}
    if is_new_command:
        search(space, name="mine", **options)
    else:
        resume("mine", edit=lambda recorded: space, **options)
    assert calls == expected
    assert len(reads) == 1
    assert view.texts == texts
    assert len(results) == (expected != ["run_session"])


def test_search_of_a_name_that_has_begun_with_another_space_is_refused(
    tmp_path: Path, home: Home, calls: list[str]
) -> None:
    begun(home, space_of(tmp_path, "trials: 6"))
    with pytest.raises(TunerError, match=r"mine cannot be resumed with another search\.sampler"):
        search(space_of(tmp_path, "trials: 6, sampler: random"), name="mine", home=home)
    assert calls == []


def test_search_that_is_not_there_cannot_be_resumed(home: Home) -> None:
    with pytest.raises(TunerError, match=r"there is no search mine in .*'tuner list' shows them"):
        resume("mine", home=home)


@pytest.mark.parametrize(
    ("error", "number"),
    [(Interrupted(signal.SIGTERM), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGINT)],
)
def test_signal_names_the_search(
    error: KeyboardInterrupt, number: int, home: Home, space: SearchSpace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    steps_of(monkeypatch, record_it)
    monkeypatch.setattr(module, "run_session", failing(error))
    with pytest.raises(Interrupted) as raised:
        search(space, name="mine", home=home)
    assert (raised.value.signal, raised.value.search) == (number, "mine")
    assert home.search("mine").is_dir()
