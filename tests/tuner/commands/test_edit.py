"""`tuner edit` of a search of a home."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.tuner.driver.driven_search import Setting
from tests.tuner.simulated_search import FACTS, SPACE, Simulation, space_of
from tuner.cli import main
from tuner.commands.jobs import edit
from tuner.conductor.conductor import Conductor
from tuner.driver import driver as driver_module
from tuner.home.home import Home
from tuner.jobs import edit as jobs_edit
from tuner.journal.edit_request import edit_requests, request_edit
from tuner.journal.journal import Journal
from tuner.space.space import SearchSpace

SEARCH = "trials: 5, sampler: random, scheduler: none"


def test_search_that_needs_other_workers_is_stopped_and_goes_on_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.of(tmp_path / "home")
    simulation = Simulation(Conductor(space_of(tmp_path, SEARCH), FACTS, 2))
    simulation.step()
    file = tmp_path / "edited" / "space.yaml"
    file.parent.mkdir()
    command = ["edit", "a", "--space", str(file), "--home", str(home.root)]
    done: list[object] = []

    class Submitted:
        who = "process 42"

        def wait(self, on_line: object) -> None:
            done.append("begun")

    def submit(name: str, home: Home, arguments: Sequence[str]) -> Submitted:
        done.append([name, *arguments])
        return Submitted()

    monkeypatch.setattr(edit, "submit", submit)
    monkeypatch.setattr(edit, "stop", lambda name, home, on_wait: done.append(f"stop {name}"))
    file.write_text(SPACE % SEARCH)
    assert main(command) == 2
    assert "there is no search a" in capsys.readouterr().err
    with closing(Journal.open(home.search("a"))) as journal:
        for event in simulation.events:
            journal.append(event)
        file.write_text(SPACE % SEARCH.replace("random", "tpe"))
        assert main(command) == 2
        assert "cannot be resumed with another search.sampler" in capsys.readouterr().err
        assert done == [], "a search that may not be edited is not disturbed"
        file.write_text(SPACE % SEARCH)
        assert main(command) == 0
        assert f"{file} changes nothing in a" in capsys.readouterr().out
        assert done == []
        file.write_text(SPACE % SEARCH + "engine: {workers: 3}\n")
        assert main(command) == 0
    assert done == ["stop a", ["a", "--resume", "a", "--space", str(file)], "begun"]
    assert f"a goes on with {file}, run by process 42" in capsys.readouterr().out
    assert main(command) == 2
    assert "nothing runs a; 'tuner submit --resume a --space" in capsys.readouterr().err


def test_running_search_goes_on_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver takes the edit; if the driver ends before, another one is started."""
    monkeypatch.setattr(driver_module, "LOOK_SECONDS", -1.0)
    home, file = Home.of(tmp_path / "home"), tmp_path / "edited" / "space.yaml"
    file.parent.mkdir()
    space = space_of(tmp_path, SEARCH.replace("5", "1"))
    setting = Setting(home.search("lm-1").parent, Conductor(space, FACTS, 2))
    setting.driver.begin()
    command = ["edit", "lm-1", "--space", str(file), "--home", str(home.root), "--json"]
    file.write_text(SPACE % SEARCH)
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(main(command)))
    asking.start()
    while asking.is_alive():
        setting.driver.tick()
        asking.join(0.01)
    printed = capsys.readouterr()
    assert "lm-1 goes on with another search.trials" in printed.err
    assert json.loads(printed.out)["trials"] == 5
    assert [*setting.running()] == [0, 1], "the lane that was idle has a trial"
    file.write_text(SPACE % SEARCH.replace("5", "9"))
    submitted: list[str] = []
    monkeypatch.setattr(edit, "_submit", lambda *arguments: submitted.append(arguments[2]))

    def ends(folder: Path, space: SearchSpace, text: str) -> Path:
        made = request_edit(folder, space, text)
        setting.journal.close()
        return made

    monkeypatch.setattr(jobs_edit, "request_edit", ends)
    assert main(command) == 0
    assert submitted == ["lm-1"]
    assert edit_requests(home.search("lm-1")) == [], "the file is given to the new driver"
    assert statuses == [0]
