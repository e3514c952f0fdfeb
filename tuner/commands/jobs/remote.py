"""`tuner login`, and the server that --server or TUNER_SERVER names for other commands."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import yaml

from tuner.commands.output import can_ask, consoles, say, say_study
from tuner.errors import TunerError
from tuner.jobs.status import SearchStatus
from tuner.space_file.yaml_file import YamlFile

if TYPE_CHECKING:
    from tuner.serve.remote.client import Client, RemoteOperation

_POLL_SECONDS = 0.5


def client_of(options: argparse.Namespace) -> Client | None:
    """Return the server of a command; None if it is about a home of this machine.

    Raises:
        TunerError: if both are named.
    """
    if options.server and options.home:
        raise TunerError("give --server or --home, not both")
    url = options.server or ("" if options.home else os.environ.get("TUNER_SERVER"))
    if not url:
        return None
    from tuner.serve.remote.client import Client

    return Client(url)


def text_of(options: argparse.Namespace) -> tuple[str, str]:
    """Return the name of the file of --space, and its text as a server gets it, with --set in it.

    Raises:
        SpaceError: if it is no YAML, or an option does not fit it.
    """
    say_study(options)
    file = YamlFile(options.space)
    for override in options.overrides:
        file.override(override.option, override.path, override.text)
    if not options.overrides:
        return file.name, file.text
    return file.name, yaml.safe_dump(file.data, allow_unicode=True, sort_keys=False)


def run_login(options: argparse.Namespace) -> int:
    """Keep the token of a server for the commands of this user."""
    from tuner.serve.remote.client import Client
    from tuner.serve.remote.tokens import keep_token

    if can_ask(options):
        token = getpass.getpass("token: ").strip()
    else:
        token = sys.stdin.readline().strip() if sys.stdin is not None else ""
    if not token:
        raise TunerError("the token is empty; an admin gets one by 'tuner serve --add-user NAME'")
    client = Client(options.url, token)
    next(client.searches(), None)  # raises if the server refuses it
    say(f"{client.url} takes the token, which is kept in {keep_token(client.url, token)}")
    return 0


def operated(
    options: argparse.Namespace, client: Client, search: str | None, kind: str, **wish: object
) -> RemoteOperation:
    """Let a server do something with a search, wait for the end, and return it.

    Args:
        options: options of the command.
        client: the server.
        search: name of the search; None for the newest.
        kind: what to do, and
        wish: how; None values are left out.

    Raises:
        TunerError: if the server refuses, or it did not work.
    """
    if search is None:
        newest = next(client.searches(), None)
        if newest is None:
            raise TunerError(f"{client.url} has no search")
        search = newest.name
    given = {name: value for name, value in wish.items() if value is not None}
    operation, shown = client.begin(search, kind, **given), ""
    _, progress = consoles(options)
    while not operation.is_over:
        if operation.progress != shown and operation.progress.startswith("report "):
            progress.write_line(shown := operation.progress)
        time.sleep(_POLL_SECONDS)
        operation = client.operation(operation.id)
    if operation.state != "done":
        raise TunerError(operation.problem or f"the server could not do it: {operation.state}")
    return operation


def trial_of(run: str | None, search: str | None) -> tuple[str | None, int | None]:
    """Return the search and the number of a trial that a command names as SEARCH/TRIAL.

    Raises:
        TunerError: if a run id of MLflow is given, which a server does not look up.
    """
    if run is None:
        return search, None
    name, slash, number = run.partition("/")
    if not slash or not number.isdecimal():
        raise TunerError(f"name a trial of a server as SEARCH/TRIAL, such as lm-1/13, not {run}")
    return name, int(number)


def width_of(options: argparse.Namespace) -> int:
    """Return the width for the tables of a server: that of the terminal here."""
    return min(max(consoles(options)[0].width, 40), 1_000)


def wait_while(client: Client, name: str, is_so: Callable[[SearchStatus], bool]) -> SearchStatus:
    """Wait while something is so of a search of a server; return its status then."""
    while is_so(status := client.search(name).status):
        time.sleep(_POLL_SECONDS)
    return status
