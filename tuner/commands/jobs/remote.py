"""`tuner login`, and the server that --server or TUNER_SERVER names for other commands."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tuner.commands.output import can_ask, say
from tuner.errors import TunerError
from tuner.jobs.status import SearchStatus

if TYPE_CHECKING:
    from tuner.serve.client import Client

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
    from tuner.serve.client import Client

    return Client(url)


def run_login(options: argparse.Namespace) -> int:
    """Keep the token of a server for the commands of this user."""
    from tuner.serve.client import Client, keep_token

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


def wait_while(client: Client, name: str, is_so: Callable[[SearchStatus], bool]) -> SearchStatus:
    """Wait while something is so of a search of a server; return its status then."""
    while is_so(status := client.search(name).status):
        time.sleep(_POLL_SECONDS)
    return status
