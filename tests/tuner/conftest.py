"""What several tests of the service share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import VOCAB
from tests.tuner.fault_injection import FaultyServer, mlflow_server
from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tests.tuner.tracking.recorded import Begin, RecordedSearch
from tuner.conductor.conductor import Conductor
from tuner.home.home import Home
from tuner.tracking.store import open_client


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of as many tokens as the small corpus has ids."""
    vocab = {byte: bytes([byte]) for byte in range(256)}
    merges = [(bytes([97]), bytes([97 + i])) for i in range(VOCAB - 257)]
    vocab |= {256 + i: a + b for i, (a, b) in enumerate(merges)}
    return Tokenizer(vocab, merges, ["<|endoftext|>"])


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without searches. MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    """A store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """MLflow's server in front of the store; clients lose patience with it soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with mlflow_server(store, tmp_path / "artifacts") as server:
        yield server


@pytest.fixture
def begin_search(store: str, tmp_path: Path) -> Iterator[Begin]:
    """Begins or resumes searches of a home, which end with the test."""
    searches: list[RecordedSearch] = []

    def begin(name: str = "lm-1", uri: str = store, **options: Any) -> RecordedSearch:
        searches.append(RecordedSearch(Home(tmp_path, uri), name, **options))
        return searches[-1]

    yield begin
    for search in searches:
        search.close()


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    """A complete search that no driver has run."""
    space = space_of(tmp_path, "trials: 9, sampler: random, scheduler: asha")
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    return simulation
