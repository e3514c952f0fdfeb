"""A server that is killed at any write of its database, before or after it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.serve.conftest import Place
from tests.tuner.simulated_search import SPACE as RECORDED
from tuner.home.home import Home
from tuner.journal.events import Event
from tuner.journal.journal import read_search
from tuner.serve import edits
from tuner.serve.database import Database
from tuner.serve.records import User
from tuner.serve.service import Wish

ADMIN = User("root", "admin")
TEXT = "name: space\n" + RECORDED % "trials: 3, sampler: random, scheduler: asha"
WRITES = ("add", "change", "note", "put_use")


class Killed(BaseException):
    """The end of the process."""


def steps(place: Place) -> None:
    """Submit a search, edit it, pause it, let it go on; its driver ends in order."""
    service, tick = place.service, place.dispatcher.tick
    service.submit(ADMIN, TEXT.encode(), Wish(name="a"))
    tick()
    service.edit(ADMIN, "a", TEXT.replace("trials: 3", "trials: 4").encode())
    tick()
    service.change(ADMIN, "a", "pause")
    tick()
    place.drivers["a"].end("interrupted")
    tick()
    service.change(ADMIN, "a", "resume")
    tick()


def finish(place: Place) -> None:
    """What its users do after another server has begun: they ask for what they do not see."""
    for _ in range(9):
        place.at += 100  # a driver that was about to begin has begun
        place.dispatcher.tick()
        state = place.service.view(ADMIN, "a").state
        driver = place.drivers.get("a")
        if state == "running":
            assert driver is not None
            driver.end("finished")
        elif state in {"pausing", "stopping"} and driver is not None and driver.exit_status is None:
            driver.end("interrupted")
        elif state == "paused":
            place.service.change(ADMIN, "a", "resume")
        elif state == "finished":
            return
    pytest.fail(f"it stays {state}")


def is_killed(place: Place, number: int, monkeypatch: pytest.MonkeyPatch, *, late: bool) -> bool:
    """Take the steps; return True if the server was killed at a write on the way."""
    writes = itertools.count()

    def killing(write: Any) -> Any:
        def wrapped(*arguments: Any, **values: Any) -> Any:
            is_it = next(writes) == number
            if is_it and not late:
                raise Killed
            result = write(*arguments, **values)
            if is_it:
                raise Killed
            return result

        return wrapped

    with monkeypatch.context() as patched:
        for name in WRITES:
            patched.setattr(Database, name, killing(getattr(Database, name)))
        try:
            steps(place)
        except Killed:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_nothing_is_lost_and_nothing_runs_twice(
    tmp_path: Path, events: Sequence[Event], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr(edits, "_PATIENCE_SECONDS", 0.0)
    for number in itertools.count():
        place = Place(Home.of(tmp_path / str(number)), events)
        was_killed = is_killed(place, number, monkeypatch, late=late)
        place.kill()
        place.open()
        if place.database.search("a") is None:
            assert number == 0, "it was never submitted"
            place.service.submit(ADMIN, TEXT.encode(), Wish(name="a"))
        finish(place)  # a second driver beside the first could not open the journal
        place.kill()
        if not was_killed:
            break
    assert number > 8, "the steps write"
    search = read_search(place.home.search("a"))
    assert search is not None
    assert search.space.search.trials == 4
