"""`tuner stop`: end a search that another process runs."""

from __future__ import annotations

import argparse

from tuner.commands.output import consoles, print_json
from tuner.home import Home
from tuner.jobs.status import SearchStatus
from tuner.jobs.stop import stop
from tuner.lease.holder import Holder


def run_stop(options: argparse.Namespace) -> int:
    """End a search, which can go on later."""
    results, progress = consoles(options)
    home, name = Home.of(options.home), options.search

    def on_wait(holder: Holder) -> None:
        what = "" if options.now else "the reports under way and "
        progress.print(
            f"waiting for {what}the end of {holder.text}", highlight=False, soft_wrap=True
        )

    stop(name, home, now=options.now, on_wait=on_wait)
    status = SearchStatus.of(home, name)
    results.print(
        f"{name} has ended: {status.state}, {status.ended} of {status.trials} trials; 'tuner "
        f"submit --resume {name}' goes on",
        highlight=False,
        soft_wrap=True,
    )
    print_json(options, status.as_json)
    return 0
