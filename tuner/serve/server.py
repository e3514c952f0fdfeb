"""The process of `tuner serve`: puts the parts together, listens, and ends without haste."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.serve.access import Access, put_users_of
from tuner.serve.api.app import make_app
from tuner.serve.api.guard import LOOPBACK, log_to_stderr
from tuner.serve.database import Database
from tuner.serve.dispatcher import FOLDER, Dispatcher
from tuner.serve.machine import Machine
from tuner.serve.searches import HomeSearches
from tuner.serve.service import Service
from tuner.serve.spaces import Allowed

_GRACE_SECONDS = 5  # for requests under way, at the end
_BACKLOG = 512


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        database: URL of the database; None for a file in the home.
        devices: number of devices to use; None for all.
        address: address of a Ray cluster on which drivers train; None for this machine.
        data: folders that spaces may name.
        buckets: URLs under which `engine.storage` may lie.
        hub: True if data may come from the Hugging Face hub.
        names: further names by which clients may call the server.
        users: file of users who may come in; None for those of the database alone.
        proxy: addresses or networks, apart by commas, of proxies that say who a client is.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    database: str | None = None
    devices: int | None = None
    address: str | None = None
    data: Sequence[str] = ()
    buckets: Sequence[str] = ()
    hub: bool = False
    names: Sequence[str] = ()
    users: str | None = None
    proxy: str = "127.0.0.1"


def open_database(home: Home, url: str | None) -> Database:
    """Open the database of a server.

    Args:
        home: home of the searches.
        url: URL of the database; None for a file in the home.

    Raises:
        TunerError: if it cannot be used.
    """
    folder = home.root / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TunerError(f"cannot make {folder}: {error.strerror}") from error
    return Database(url) if url else Database.in_folder(folder)


def serve(home: Home, settings: ServerSettings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; drivers go on.

    Args:
        home: home of the searches.
        settings: how to serve.
        say: function that takes sentences for the operator.

    Raises:
        TunerError: if the server cannot listen, or would be open to others.
    """
    allowed = Allowed(
        tuple(_folder(path) for path in settings.data),
        tuple(url.rstrip("/") for url in settings.buckets),
        settings.hub,
    )
    machine = Machine.found(settings.devices, settings.address)
    with ExitStack() as ends:
        listener = ends.enter_context(_listening(settings))
        database = ends.enter_context(closing(open_database(home, settings.database)))
        if database.was_damaged is not None:
            say(
                f"the database was damaged, and is kept as {database.was_damaged}: the queue and "
                f"the users are lost, no result is"
            )
        if settings.users is not None and put_users_of(database, Path(settings.users)):
            say(f"the users of {settings.users} may come in")
        is_local = is_loopback(settings.host)
        access = Access(database, is_open=is_local and not settings.names)
        if not access.has_users() and (settings.names or not is_local):
            raise TunerError(
                "without users only this machine may use the server; add one with 'tuner serve "
                "--add-user NAME --role admin', or listen on 127.0.0.1"
            )
        searches = HomeSearches(home)
        dispatcher = Dispatcher(home, database, searches, machine)
        service = Service(home, database, searches, dispatcher, machine, allowed)
        hosts = {*LOOPBACK, settings.host, *settings.names} if is_local or settings.names else None
        app = make_app(service, access, hosts=hosts, log=log_to_stderr)
        dispatcher.begin()
        ends.callback(dispatcher.close)
        host, port = listener.getsockname()[:2]
        say(f"searches of {home.root}: http://{f'[{host}]' if ':' in host else host}:{port}")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none",
            lifespan="off", timeout_graceful_shutdown=_GRACE_SECONDS, backlog=_BACKLOG,
            forwarded_allow_ips=settings.proxy,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # uvicorn has ended, and raises the signal again
            uvicorn.Server(config).run(sockets=[listener])
    say("the server has ended; drivers go on")


def is_loopback(host: str) -> bool:
    """Return True if only processes of this machine reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(settings: ServerSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise TunerError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; give "
            f"another --port or --host"
        ) from error


def _folder(path: str) -> Path:
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise TunerError(f"--data {path}: there is no such folder")
    return folder
