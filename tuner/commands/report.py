"""`tuner report`: write a search as a page."""

from __future__ import annotations

import argparse
import time
import webbrowser

from tuner.commands.output import consoles, in_utf8, print_json, recorded_home, say
from tuner.home.home import Home
from tuner.lease.folder import is_running
from tuner.report.write import check_output, samples_of, write_report
from tuner.texts.formatting import counted
from tuner.trained.load_search import load_search

_POLL_SECONDS = 0.5


def run_report(options: argparse.Namespace) -> int:
    """Write the report of a search."""
    check_output(options.output)
    home = recorded_home(options)
    result = load_search(options.search, home=home)
    is_on = options.watch is not None and is_running(home.search(result.name))
    seconds = round(options.watch) if is_on else None
    samples = {} if is_on else samples_of(result, home, in_utf8(options.prompt))
    page = write_report(result, options.output, samples, reload_seconds=seconds)
    results, _ = consoles(options)
    megabytes = page.stat().st_size / 1e6
    results.write_line(
        f"wrote {page}: {result.name}, {counted(len(result.trials), 'trial')}, {megabytes:.1f} MB"
    )
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    if is_on:
        _watch(options, home, result.name)
    print_json(options, {"search": result.name, "report": str(page)})
    return 0


def _watch(options: argparse.Namespace, home: Home, name: str) -> None:
    """Write the page again and again while a search runs, and once more when it has ended."""
    folder = home.search(name)
    is_on = True
    while is_on:
        until = time.monotonic() + options.watch
        while is_running(folder) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        is_on = is_running(folder)
        result = load_search(name, home=home)
        samples = {} if is_on else samples_of(result, home, in_utf8(options.prompt))
        seconds = round(options.watch) if is_on else None
        write_report(result, options.output, samples, reload_seconds=seconds)
    say(f"{name} has ended; {options.output} is complete")
