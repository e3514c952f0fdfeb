"""A server in this process: drivers are journals that this process writes, the clock is made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.tuner.simulated_search import FACTS, Simulation, space_of
from tuner.conductor.conductor import Conductor
from tuner.home.home import Home
from tuner.journal.edit_request import EditRequests
from tuner.journal.events import Event, SessionEnded
from tuner.journal.fold import Search
from tuner.journal.journal import Journal
from tuner.serve.access import Access
from tuner.serve.api.app import make_app
from tuner.serve.database import Database
from tuner.serve.dispatcher import Dispatcher
from tuner.serve.machine import Machine
from tuner.serve.searches import HomeSearches
from tuner.serve.server import open_database
from tuner.serve.service import Service
from tuner.serve.spaces import Allowed

SPACE = """\
name: lm
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
model: {context_length: 32}
budget: {tokens: 27_000, reports: 9}
engine: {workers: 1}
search: {trials: 3, seed: %d}
"""


@dataclass
class Process:
    """A driver that a test plays: it has the journal until it ends."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    journal: Journal | None
    exit_status: int | None = None

    def end(self, status: str | None = None, exit_status: int = 0) -> None:
        """End in order with a status, or die."""
        if self.journal is not None:
            if status is not None:
                self.journal.append(SessionEnded(status))  # type: ignore[arg-type]
            self.journal.close()
        self.exit_status = exit_status


@dataclass
class Place:
    """A home, its server's parts, and the drivers that were started."""

    home: Home
    events: Sequence[Event]
    machine: Machine = field(default_factory=lambda: Machine(2))
    drivers: dict[str, Process] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    at: float = 1_000_000.0
    begins_at_once: bool = True

    def __post_init__(self) -> None:
        self.open()

    def open(self, *, is_open: bool = True) -> None:
        """Start the server, perhaps again."""
        self.database: Database = open_database(self.home, None)
        self.searches = HomeSearches(self.home, fresh_seconds=0.0)
        self.dispatcher = Dispatcher(
            self.home, self.database, self.searches, self.machine, self._start, lambda: self.at
        )
        self.service = Service(
            self.home, self.database, self.searches, self.dispatcher, self.machine, Allowed()
        )
        self.log: list[str] = []
        self.access = Access(self.database, is_open=is_open)
        app = make_app(self.service, self.access, log=self.log.append)
        self.client = TestClient(app, raise_server_exceptions=False)

    def kill(self) -> None:
        """End the server without its knowledge; its drivers live."""
        self.dispatcher.close()  # what the kernel would free
        self.database.close()
        self.client.close()

    def submit(self, seed: int = 0, **query: str) -> dict[str, object]:
        """Submit a search over HTTP."""
        answer = self.client.post("/api/v1/searches", content=SPACE % seed, params=query)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def state(self, name: str) -> str:
        """The state that the API shows."""
        return self.client.get(f"/api/v1/searches/{name}").json()["state"]  # type: ignore[no-any-return]

    def begin(self, name: str) -> None:
        """Let a driver have its search: the lease, and the first events."""
        journal = Journal.open(self.home.search(name))
        for event in () if journal.entries else self.events:
            journal.append(event)
        recorded = Search.of_name(journal.events, name)
        for edit in EditRequests(journal.path.parent, print).take(recorded.space, is_live=False):
            journal.append(edit)
        self.drivers[name].journal = journal

    def _start(
        self, name: str, home: Home, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> Process:
        self.starts.append(name)
        self.drivers[name] = Process(arguments, environment, None)
        if self.begins_at_once:
            self.begin(name)
        return self.drivers[name]


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Event]:
    """The first events of a search."""
    folder = tmp_path_factory.mktemp("space")
    space = space_of(folder, "trials: 3, sampler: random, scheduler: asha")
    simulation = Simulation(Conductor(space, FACTS, 1))
    for _ in range(5):
        simulation.step()
    return simulation.events


@pytest.fixture
def place(tmp_path: Path, events: Sequence[Event]) -> Iterator[Place]:
    made = Place(Home.of(tmp_path / "home"), events)
    yield made
    for driver in made.drivers.values():
        if driver.exit_status is None:
            driver.end()
    made.kill()
