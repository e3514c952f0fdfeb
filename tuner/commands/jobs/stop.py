"""`tuner stop`: end a search that another process runs."""

from __future__ import annotations

import argparse

from tuner.commands.output import consoles, home_option, print_json
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

    stop(name, home, now=options.now, on_wait=on_wait)
    if not home.search(name).exists():  # nothing was recorded, so its name is free again
        results.write_line(f"{name} has ended before it began; nothing was recorded")
        print_json(options, {"name": name, "state": "not begun"})
        return 0
    status = SearchStatus.of(home, name)
    results.write_line(
        f"{name} has ended: {status.state}, {status.ended} of {status.trials} trials; 'tuner "
        f"submit --resume {name}{home_option(options)}' goes on"
    )
    print_json(options, status)
    return 0
