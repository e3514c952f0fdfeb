"""`tuner report`: write a search as a page."""

from __future__ import annotations

import argparse
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import replacing
from tuner.commands.jobs.remote import client_of, operated
from tuner.commands.output import consoles, in_utf8, print_json, recorded_home, say
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.lease.folder import is_running
from tuner.report.write import check_output, samples_of, write_report
from tuner.texts.formatting import counted
from tuner.trained.load_search import load_search

if TYPE_CHECKING:
    from tuner.serve.remote.client import Client

_POLL_SECONDS = 0.5


def run_report(options: argparse.Namespace) -> int:
    """Write the report of a search."""
    check_output(options.output)
    if (client := client_of(options)) is not None:
        return _from_server(options, client)
    home = recorded_home(options)
    result = load_search(options.search, home=home)
    is_on = options.watch is not None and is_running(home.search(result.name))
    seconds = round(options.watch) if is_on else None
    samples = {} if is_on else samples_of(result, home, in_utf8(options.prompt))
    page = write_report(result, options.output, samples, reload_seconds=seconds)
    _show(options, page, result.name, len(result.trials))
    if is_on:
        _watch(options, home, result.name)
    _print_json(options, page, result.name, len(result.trials))
    return 0


def _show(options: argparse.Namespace, page: Path, name: str, trials: int) -> None:
    """Say that a page is written, and open it if that is wanted."""
    results, _ = consoles(options)
    megabytes = page.stat().st_size / 1e6
    results.write_line(f"wrote {page}: {name}, {counted(trials, 'trial')}, {megabytes:.1f} MB")
    if options.open:
        webbrowser.open(page.resolve().as_uri())


def _print_json(options: argparse.Namespace, page: Path, name: str, trials: int) -> None:
    print_json(options, {"search": name, "report": str(page), "trials": trials})


def _from_server(options: argparse.Namespace, client: Client) -> int:
    """Fetch the report of a search of a server."""
    if options.watch is not None or options.prompt:
        raise TunerError("--watch and --prompt are not sent to a server; leave them out")
    operation = operated(options, client, options.search, "report")
    page, found = Path(options.output), operation.result or {}
    with replacing(page.resolve()) as file:
        file.write(client.file(operation.id, operation.files[0]))
    name, trials = str(found.get("search", "")), int(found.get("trials", 0))
    _show(options, page, name, trials)
    _print_json(options, page, name, trials)
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
