"""A search that is over, for the tests of other processes' searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    """A complete search that no driver has run."""
    space = space_of(tmp_path, "trials: 9, sampler: random, scheduler: asha")
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    return simulation
