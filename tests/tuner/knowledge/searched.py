"""Homes with searches whose reports come from a formula."""

from __future__ import annotations

from pathlib import Path

from tests.tuner.simulated_search import FACTS, SPACE, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.home.home import Home
from tuner.journal.journal import Journal


def searched(home: Home, name: str, folder: Path, text: str = SPACE, trials: int = 8) -> None:
    """Write the journal of a search into a home."""
    space = space_of(folder, f"trials: {trials}, sampler: random, scheduler: none", text)
    simulation = Simulation(Conductor(space, FACTS, 2))
    simulation.run()
    journal = Journal.open(home.search(name))
    with journal.together():
        for event in simulation.events:
            journal.append(event)
    journal.close()
