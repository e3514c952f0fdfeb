"""`tuner stop`: end a search that another process runs."""

from __future__ import annotations

import argparse

from tuner.commands.jobs.remote import client_of, wait_while
from tuner.commands.output import consoles, home_option, print_json
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus
from tuner.jobs.stop import stop
from tuner.lease.holder import Holder


def run_stop(options: argparse.Namespace) -> int:
    """End a search, which can go on later."""
    results, progress = consoles(options)
    home, name = Home.of(options.home), options.search

    def on_wait(holder: Holder) -> None:
        what = "" if options.now else "the reports under way and "
        progress.write_line(f"waiting for {what}the end of {holder.text}")

    client = client_of(options)
    if client is not None:
        if options.now:
            raise TunerError("a server ends searches after the reports under way; leave out --now")
        client.stop(name)
        progress.write_line(f"waiting for the reports under way and the end of {name}")
        status = wait_while(client, name, lambda status: status.state == "stopping")
        _say_end(options, status)
        return 0
    stop(name, home, now=options.now, on_wait=on_wait)
    if not home.search(name).exists():  # nothing was recorded, so its name is free again
        results.write_line(f"{name} has ended before it began; nothing was recorded")
        print_json(options, {"name": name, "state": "not begun"})
        return 0
    _say_end(options, SearchStatus.of(home, name))
    return 0


def _say_end(options: argparse.Namespace, status: SearchStatus) -> None:
    results, _ = consoles(options)
    results.write_line(
        f"{status.name} has ended: {status.state}, {status.ended} of {status.trials} trials; "
        f"'tuner submit --resume {status.name}{home_option(options)}' goes on"
    )
    print_json(options, status)
