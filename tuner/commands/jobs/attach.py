"""`tuner attach` and `tuner logs`: look at a search that another process runs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from codecs import getincrementaldecoder
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import NotRegular
from tuner.commands.jobs.remote import client_of
from tuner.commands.output import consoles, print_data, print_json, say
from tuner.driver.view import ViewProjection
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus, no_search
from tuner.journal.follower import Follower
from tuner.journal.journal import JournalTail
from tuner.lease.folder import is_running
from tuner.terminal.live import view_on

if TYPE_CHECKING:
    from tuner.serve.remote.client import Client

_POLL_SECONDS = 0.5
_END_SECONDS = 5.0  # longest wait for the last lines of the view
_READ_BYTES = 1 << 20
_ACTIVE = ("waiting", "starting", "running", "pausing", "stopping")  # of a server's search


def run_attach(options: argparse.Namespace) -> int:
    """Show the live view of a search until it ends; Ctrl-C leaves it, and it goes on."""
    _, progress = consoles(options)
    home, name = Home.of(options.home), options.search
    client = client_of(options)
    tail: JournalTail
    if client is not None:
        from tuner.serve.remote.client import RemoteTail

        tail = RemoteTail(client, name)
    else:
        tail = JournalTail(_folder(home, name))

    def look() -> SearchStatus:
        return client.search(name).status if client else SearchStatus.of(home, name)

    def is_on() -> bool:
        return look().state in _ACTIVE if client else is_running(home.search(name))

    view = view_on(progress)
    if not is_on():
        say(f"tuner attach: nothing runs {name} at present")
        return _say_end(options, look())
    if (status := look()).state in ("starting", "waiting"):
        view.phase(f"{name} is {status.state}" + (f": {status.waits_for}" * bool(status.waits_for)))
    follower = Follower(ViewProjection(view, name), tail, from_now=True).start()
    try:
        while is_on():
            time.sleep(_POLL_SECONDS)
            if follower.problem:
                raise TunerError(follower.problem)
    except KeyboardInterrupt:
        follower.close(0.0)
        say(f"left {name}, which goes on; 'tuner stop {name}' would end it")
        return 0
    finally:
        follower.close(_END_SECONDS)
    return _say_end(options, look())


def _say_end(options: argparse.Namespace, status: SearchStatus) -> int:
    results, _ = consoles(options)
    best = "" if status.best is None else f"; best {status.metric} {status.best:.4f}"
    results.write_line(
        f"{status.name}: {status.state}, {status.ended}/{status.trials} trials{best}"
    )
    print_json(options, status)
    return 0


def run_logs(options: argparse.Namespace) -> int:
    """Print what the drivers of a submitted search have printed."""
    if (client := client_of(options)) is not None:
        return _print_remote_log(client, options.search, follow=options.follow)
    home, name = Home.of(options.home), options.search
    folder = _folder(home, name)
    try:
        log = home.open_log(name)
    except FileNotFoundError as error:
        raise TunerError(
            f"{name} was not submitted, so its output went to its terminal; 'tuner attach {name}' "
            f"and 'tuner show --search {name}' read its journal"
        ) from error
    except NotRegular as error:
        raise TunerError(str(error)) from error
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    with os.fdopen(log, "rb") as file:
        while True:
            is_on = options.follow and is_running(folder)
            while data := file.read(_READ_BYTES):
                print_data(decoder.decode(data))
            sys.stdout.flush()
            if not is_on:
                return 0
            time.sleep(_POLL_SECONDS)


def _print_remote_log(client: Client, name: str, *, follow: bool) -> int:
    """Print the log of a search of a server."""
    from tuner.serve.remote.client import LOG_FILE

    decoder, start = getincrementaldecoder("utf-8")(errors="replace"), 0
    while True:
        is_on = follow and client.search(name).state in _ACTIVE
        while data := client.download(name, LOG_FILE, start):
            start += len(data)
            print_data(decoder.decode(data))
        sys.stdout.flush()
        if not is_on:
            return 0
        time.sleep(_POLL_SECONDS)


def _folder(home: Home, name: str) -> Path:
    folder = home.search(name)
    if not folder.is_dir() and not home.log(name).is_file():
        raise no_search(name, home)
    return folder
