"""The frame of a search: exceptions of a session that is made up."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tuner.results.finished_search import result_in
from tests.tuner.simulated_search import FACTS, space_of
from tuner.driver import search as module
from tuner.driver import sync
from tuner.driver.interrupt import Interrupts
from tuner.driver.search import go_on, search
from tuner.driver.view import SilentView
from tuner.errors import Interrupted, JournalError, JournalInUse, TunerError
from tuner.home import Home
from tuner.journal.events import Event, SearchBegun, SessionBegun, SessionEnded
from tuner.journal.journal import Journal
from tuner.space.space import SearchSpace
from tuner.tracking.tags import JOURNAL_FILE


def context(error: Exception | None = None) -> Any:
    def close() -> None:
        if error is not None:
            raise error

    journal = SimpleNamespace(close=close)
    return SimpleNamespace(name="lm-1", journal=journal, folder=Path("lm-1"), view=SilentView())


def test_result_stays_when_the_journal_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_in(tmp_path)
    monkeypatch.setattr(module, "run_search", lambda *arguments: result)
    assert module._run(context(), (), Interrupts(), 0.0, print) is result
    full = JournalError("cannot write the journal: No space left on device")
    assert module._run(context(full), (), Interrupts(), 0.0, print).lost == str(full)


@pytest.mark.parametrize("name", [None, "mine"])
def test_workers_start_again_if_the_store_has_the_name(name: str | None, tmp_path: Path) -> None:
    """The store is open only after the workers have started."""
    home, started, ended = Home.at(tmp_path), [], []
    taken = name or "lm-1"
    store: Any = SimpleNamespace(
        wait=lambda interrupts: SimpleNamespace(searches=lambda: [SimpleNamespace(name=taken)])
    )

    def start(claimed: str) -> Any:
        started.append(claimed)
        return SimpleNamespace(end=lambda: ended.append(claimed))

    space: Any = SimpleNamespace(name="lm")
    if name is None:
        claimed, journal, _ = module._claim(store, space, name, home, start, Interrupts())
        journal.close()
        assert (claimed, started, ended) == ("lm-2", ["lm-1", "lm-2"], ["lm-1"])
        assert [path.name for path in home.search("").iterdir()] == ["lm-2"]
    else:
        with pytest.raises(TunerError, match="mine is recorded already"):
            module._claim(store, space, name, home, start, Interrupts())
        assert (ended, list(home.search("").iterdir())) == (["mine"], [])


class Texts(SilentView):
    """A view that keeps its messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, message: str) -> None:
        self.texts.append(message)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a search is that begins, goes on, or is only read."""
    calls: list[str] = []
    result: Any = object()
    for owner, name in (
        (module, "resume"), (module, "check_early"), (module, "load_search"), (sync, "sync")
    ):  # fmt: skip
        monkeypatch.setattr(
            owner, name, lambda *args, name=name, **options: calls.append(name) or result
        )
    return calls


def begun(home: Home, space: SearchSpace, *events: Event) -> None:
    with closing(Journal.open(home.search("mine"))) as journal:
        for event in (SearchBegun(space, "", FACTS), SessionBegun({}, 1, True), *events):
            journal.append(event)


@pytest.mark.parametrize(
    ("status", "trials", "expected", "texts"),
    [
        ("interrupted", 6, ["resume"], []),
        ("interrupted", 9, ["resume"], []),
        ("finished", 9, ["resume"], []),
        (
            "finished",
            6,
            ["sync", "load_search"],
            ["mine has finished already: nothing is left to train"],
        ),
    ],
)
def test_search_of_a_name_that_has_begun_goes_on(
    status: str,
    trials: int,
    expected: list[str],
    texts: list[str],
    tmp_path: Path,
    calls: list[str],
) -> None:
    home, view, results = Home.at(tmp_path / "home"), Texts(), []
    begun(home, space_of(tmp_path, "trials: 6"), SessionEnded(status))
    space = space_of(tmp_path, f"trials: {trials}")
    search(space, name="mine", home=home, view=view, on_result=results.append)
    assert calls == expected
    assert view.texts == texts
    assert len(results) == (expected != ["resume"])


def test_search_of_a_name_that_has_begun_with_another_space_is_refused(
    tmp_path: Path, calls: list[str]
) -> None:
    home = Home.at(tmp_path / "home")
    begun(home, space_of(tmp_path, "trials: 6"))
    with pytest.raises(TunerError, match=r"mine cannot be resumed with another search\.sampler"):
        search(space_of(tmp_path, "trials: 6, sampler: random"), name="mine", home=home)
    assert calls == []


@pytest.mark.parametrize("torn", [None, b"", b'{"event":"sea'])
def test_search_that_was_killed_before_it_began_begins(
    torn: bytes | None, tmp_path: Path, calls: list[str]
) -> None:
    home, space = Home.at(tmp_path / "home"), space_of(tmp_path, "trials: 6")
    home.search("mine").mkdir(parents=True)
    if torn is not None:
        (home.search("mine") / JOURNAL_FILE).write_bytes(torn)
    with pytest.raises(TunerError, match="mine has not begun"):
        go_on("mine", edit=lambda recorded: space, home=home)
    with pytest.raises(AttributeError):  # from the checks on, with what they did not return
        search(space, name="mine", home=home)
    assert calls == ["check_early"]
    name, journal = module._claim_name((), space, "mine", home)
    assert (name, journal.events) == ("mine", [])
    with pytest.raises(JournalInUse):  # of two drivers that begin, one does
        module._claim_name((), space, "mine", home)
    journal.close()
    begun(home, space)
    with pytest.raises(JournalInUse, match="mine has just begun; repeat the command"):
        module._claim_name((), space, "mine", home)
    assert module._claim_name((), space, None, home)[0] == f"{space.name}-1"


def test_signal_while_the_store_opens_frees_the_name(tmp_path: Path) -> None:
    home, interrupts, may_open = Home.at(tmp_path), Interrupts(), threading.Event()
    store = module._Store(home, None, opened=lambda uri: may_open.wait(30))  # type: ignore
    store.open()

    def start(claimed: str) -> Any:
        interrupts.handle(signal.SIGTERM, None)

    space: Any = SimpleNamespace(name="lm")
    with pytest.raises(Interrupted):
        module._claim(store, space, None, home, start, interrupts)
    may_open.set()
    assert list(home.search("").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "number"),
    [(Interrupted(signal.SIGTERM), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGINT)],
)
def test_signal_names_the_search(
    error: KeyboardInterrupt, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "run_search", run)
    with pytest.raises(Interrupted) as raised:
        module._run(context(), (), Interrupts(), 0.0, print)
    assert (raised.value.signal, raised.value.search) == (number, "lm-1")
