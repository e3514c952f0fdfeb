"""A server that listens, whose drivers a test plays: reports come when the test says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn

from tests.ports import free_port
from tests.tuner.simulated_search import FACTS, Simulation
from tuner.conductor.conductor import Conductor
from tuner.home.home import Home
from tuner.journal.events import SessionBegun, SessionEnded
from tuner.journal.journal import Journal
from tuner.results.advice import advise
from tuner.serve.access import Access
from tuner.serve.api.app import make_app
from tuner.serve.dispatcher import Dispatcher
from tuner.serve.machine import Machine
from tuner.serve.searches import HomeSearches
from tuner.serve.server import open_database
from tuner.serve.service import Service
from tuner.serve.spaces import Allowed
from tuner.space_file.load import load_space


class PlayedDriver:
    """A driver of a submitted search, which reports what a formula says; a resumed one goes on.

    Args:
        home: home of the search.
        name: name of the search.
        space: file of its space.
    """

    def __init__(self, home: Home, name: str, space: Path) -> None:
        self.exit_status: int | None = None
        self.journal = Journal.open(home.search(name))
        self.name, self.space = name, load_space(space)
        self._simulation = Simulation(Conductor(self.space, FACTS, 4))
        own = [e for e in self.journal.events if not isinstance(e, SessionBegun | SessionEnded)]
        while self._count() < len(own) and self._simulation.step():
            pass
        self._written = 0
        if own:
            self._written = len(self._simulation.events)
            self.journal.append(SessionBegun({}, 4, in_order=True))
        self._write()

    def play(self, reports: int = 1) -> bool:
        """Report some times; return False after the end, or if the driver was asked to end."""
        for _ in range(reports):
            if self.exit_status is not None:
                return False
            if self.journal.stop_request() is not None:
                return self.end("interrupted")
            if not self._simulation.step():
                self._simulation.conductor.close()
                return self.end("finished")
            self._write()
        return True

    def end(self, status: str) -> bool:
        """End with a status."""
        board = self._simulation.conductor.board
        advice = advise(self.space, board.searched, self.name) if status == "finished" else ()
        best = board.best.number if board.best else None
        self.journal.append(SessionEnded(status, best=best, advice=tuple(advice)))  # type: ignore[arg-type]
        self.journal.close()
        self.exit_status = 0
        return False

    def _count(self) -> int:
        return len(self._simulation.events) - 1  # its session

    def _write(self) -> None:
        with self.journal.together():
            for event in self._simulation.events[self._written :]:
                self.journal.append(event)
        self._written = len(self._simulation.events)


class PlayedServer:
    """A server on a port of this machine, in a thread.

    Args:
        home: home of the searches.
        devices: number of devices.
        port: port; 0 for any.
    """

    def __init__(self, home: Home, devices: int = 2, port: int = 0) -> None:
        self.home, self.port = home, port or free_port()
        self.drivers: dict[str, PlayedDriver] = {}
        self.database = open_database(home, None)
        self._machine, self._searches = Machine(devices), HomeSearches(home)
        self.dispatcher = Dispatcher(
            home, self.database, self._searches, self._machine, self._start
        )
        self.dispatcher.begin()
        self.listen()

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Answer requests, perhaps again."""
        service = Service(
            self.home, self.database, self._searches, self.dispatcher, self._machine, Allowed()
        )
        app = make_app(service, Access(self.database, is_open=True))
        config = uvicorn.Config(
            app, port=self.port, log_level="critical", lifespan="off", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", self.port))  # clients wait from now on
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()

    def deafen(self) -> None:
        """Answer no more requests, as if the network were lost."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def close(self) -> None:
        """End, and the drivers too."""
        self.deafen()
        self.dispatcher.close()
        for driver in self.drivers.values():
            if driver.exit_status is None:
                driver.end("interrupted")
        self.database.close()

    def _start(
        self, name: str, home: Home, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> PlayedDriver:
        file = home.root / "serve" / f"{name}.yaml"
        self.drivers[name] = PlayedDriver(home, name, file)
        return self.drivers[name]
