"""`tuner status`: how far the searches of a home are."""

from __future__ import annotations

import argparse
import time

from tuner.commands.jobs.remote import client_of
from tuner.commands.output import consoles, home_option, print_json
from tuner.home.home import Home
from tuner.jobs.status import SearchStatus, searches_of
from tuner.results.sentences import left_sentence
from tuner.texts.formatting import clock, metric_text

_HEAD = ("search", "state", "trials", "best", "tokens", "tokens/s", "left", "newest report")


def run_status(options: argparse.Namespace) -> int:
    """Say how far one search is, or all of a home."""
    results, _ = consoles(options)
    home, client = Home.of(options.home), client_of(options)
    if options.search:
        name = options.search
        status = client.search(name).status if client else SearchStatus.of(home, name)
        for line in _lines(status, home_option(options)):
            results.write_line(line)
        print_json(options, status)
        return 0
    if client is not None:
        statuses = [search.status for search in client.searches()]
    else:
        statuses = [SearchStatus.of(home, name) for name in reversed(searches_of(home))]
    if statuses:
        hidden = ["newest report", "tokens", "tokens/s", "best", "left"]
        results.table(None, _HEAD, map(_cells, statuses), hidden)
    else:
        where = client.url if client else home.root
        results.write_line(f"No search has begun in {where}.")
    print_json(options, {"searches": statuses})
    return 0


def _cells(status: SearchStatus) -> list[str]:
    return [
        status.name,
        status.state,
        _trials(status),
        "" if status.best is None else f"{metric_text(status.best)}",
        f"{status.tokens:,}" if status.trials else "",
        "" if status.tokens_per_second is None else f"{status.tokens_per_second:,.0f}",
        "" if status.seconds_left is None else clock(status.seconds_left),
        _ago(status),
    ]


def _lines(status: SearchStatus, home: str) -> list[str]:
    """Return the status of one search, a line for each subject; `home` is the option of hints."""
    lines = [f"{status.name}: {status.state}" + (f", {status.driver}" if status.driver else "")]
    if status.problem:
        lines.append(f"no numbers: {status.problem}")
    if status.waits_for:
        lines.append(f"waits: {status.waits_for}")
    if status.trials:
        lines.append(f"{_trials(status)} trials have ended, {status.tokens:,} tokens trained")
    if status.best is not None:
        lines.append(f"best {status.metric} {metric_text(status.best)}, trial {status.best_trial}")
    if status.left is not None:
        lines.append(left_sentence(status.left, status.metric))
    if status.tokens_per_second is not None:
        left = "" if status.seconds_left is None else f", about {clock(status.seconds_left)} left"
        lines.append(f"{status.tokens_per_second:,.0f} tokens/s{left}")
    if status.newest:
        lines.append(f"newest report {_ago(status)} ago")
    if status.state == "interrupted" and status.newest is None:
        begin = f"'tuner search --space FILE --name {status.name}{home}' begins it"
        lines.append(f"it has trained nothing; {begin}")
    elif status.state == "interrupted":
        lines.append(f"'tuner submit --resume {status.name}{home}' goes on")
    return lines


def _trials(status: SearchStatus) -> str:
    return f"{status.ended}/{status.trials}" if status.trials else ""


def _ago(status: SearchStatus) -> str:
    return clock(max(0.0, time.time() - status.newest)) if status.newest else ""
