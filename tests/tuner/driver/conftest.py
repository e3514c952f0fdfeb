"""A home and a space of a search that begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.simulated_search import space_of
from tuner.home.home import Home
from tuner.space.space import SearchSpace


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", f"sqlite:///{tmp_path}/home/mlflow.db")


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return space_of(tmp_path, "trials: 6")
