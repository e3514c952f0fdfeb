"""`tuner compare` of whole searches, by their journals."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report
from tests.tuner.simulated_search import FACTS, SPACE, Simulation, space_of, trained
from tuner.cli import main
from tuner.conductor.conductor import Conductor
from tuner.conductor.trial import Trial
from tuner.home.home import Home
from tuner.journal.events import SessionEnded
from tuner.journal.journal import Journal

SEARCH = "trials: 5, sampler: random, scheduler: none"


def write(home: Home, name: str, folder: Path, text: str = SPACE, better: float = 0.0) -> None:
    """A search with retrainings, all of whose losses are lower by a number."""

    def report(trial: Trial, step: int) -> Report:
        made = trained(trial, step)
        return replace(made, val_loss=made.val_loss - better)

    simulation = Simulation(Conductor(space_of(folder, SEARCH, text), FACTS, 2), train=report)
    simulation.run()
    with closing(Journal.open(home.search(name))) as journal:
        for event in (*simulation.events, SessionEnded("finished")):
            journal.append(event)


def test_searches_are_told_apart_by_their_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home.of(tmp_path / "home")
    write(home, "a", tmp_path)
    write(home, "same", tmp_path)
    write(home, "b", tmp_path, SPACE.replace("[1e-3, 1]", "[1e-3, 0.5]"), better=1.0)
    off = SPACE.replace("{top: 2, seeds: 2}", "off")
    write(home, "c", tmp_path, off)

    def said(*names: str) -> str:
        assert main(["compare", *names, "--home", str(home.root)]) == 0
        return capsys.readouterr().out

    text = said("a", "b")
    assert "b is better than a by " in text
    assert "log-uniform 0.001 … 0.5" in text
    assert "weight_decay" in text
    text = said("a", "same")
    assert "The searches have the same space." in text
    assert "a and same cannot be told apart" in text
    assert "the winner of c was not retrained with several seeds" in said("a", "c")
    assert main(["compare", "a", "b", "--json", "--home", str(home.root)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [len(each["seeds"]) for each in answer["searches"]] == [2, 2]
    assert main(["compare", "a", "--home", str(home.root)]) == 2
