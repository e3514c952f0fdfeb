"""`tuner edit` of a search of a home."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS, SPACE, Simulation, space_of
from tuner.cli import main
from tuner.commands.jobs import edit
from tuner.conductor.conductor import Conductor
from tuner.home.home import Home
from tuner.journal.journal import Journal

SEARCH = "trials: 5, sampler: random, scheduler: none"


def test_running_search_is_stopped_and_goes_on_with_the_file(
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
        file.write_text(SPACE % SEARCH.replace("trials: 5", "trials: 9"))
        assert main(command) == 0
    assert done == ["stop a", ["a", "--resume", "a", "--space", str(file)], "begun"]
    assert f"a goes on with {file}, run by process 42" in capsys.readouterr().out
    assert main(command) == 2
    assert "nothing runs a; 'tuner submit --resume a --space" in capsys.readouterr().err
