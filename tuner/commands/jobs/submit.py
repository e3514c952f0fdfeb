"""`tuner submit`: hand a search over to a process that outlives the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.commands.jobs.remote import client_of, text_of
from tuner.commands.output import consoles, home_of, home_option, print_json, say, say_study
from tuner.errors import TunerError
from tuner.jobs.submit import free_name, submit, submit_to_ray
from tuner.notify.receivers import receivers_of
from tuner.space_file.load import read_space

if TYPE_CHECKING:
    from tuner.serve.remote.client import Client


def run_submit(options: argparse.Namespace) -> int:
    """Begin or go on with a search in a process of its own, or in the queue of a server."""
    if (client := client_of(options)) is not None:
        return _submit_to_server(options, client)
    if options.priority:
        raise TunerError("--priority is for the queue of a server; give --server, or leave it out")
    name = options.name or options.resume
    home = home_of(options)
    if options.space and not options.resume:
        say_study(options)
        space, _ = read_space(options.space, options.overrides)  # a mistake is reported at once
        name = name or free_name(space.name, home)
    # of two equal options the last one counts
    arguments = [*_without_urls(options.given), *([] if options.resume else ["--name", name])]
    receivers_of(options.notify)  # a mistake is reported at once
    if options.address and "://" in options.address:
        submission = submit_to_ray(name, home, arguments, options.address, options.notify)
    else:
        submission = submit(name, home, arguments, options.notify)
    try:
        status = submission.wait(say)
    except KeyboardInterrupt:
        say(f"{submission.who} goes on to begin {name}; 'tuner stop {name}' ends it")
        raise
    if status:
        raise TunerError(
            f"{name} has not begun: {submission.who} ended with status {status}; its lines above, "
            f"and 'tuner logs {name}', say why"
        )
    results, _ = consoles(options)
    results.write_line(f"{name} is run by {submission.who}.")
    _print_hints(options, name)
    print_json(options, {"search": name, "driver": submission.who, "log": str(home.log(name))})
    return 0


def _print_hints(options: argparse.Namespace, name: str) -> None:
    """Print the commands with which one looks at a search."""
    results, _ = consoles(options)
    for command, meaning in (
        ("attach", "look at it"), ("status", "how far it is"), ("logs", "what it has printed"),
        ("stop", "end it; submitting it again goes on"),
    ):  # fmt: skip
        line = f"  tuner {command} {name}{home_option(options)}"
        results.write_line(f"{line:<44} {meaning}")


def _submit_to_server(options: argparse.Namespace, client: Client) -> int:
    """Put a search into the queue of a server, or let it go on."""
    if options.address or options.notify or options.fresh:
        raise TunerError("--address, --notify and --fresh are not sent to a server; leave them out")
    results, _ = consoles(options)
    if options.resume:
        search = client.resume(options.resume)
    else:
        file, text = text_of(options)
        search = client.submit(
            text, file=file, name=options.name, priority=options.priority or "normal"
        )
    name, why = search.name, f": {search.waits_for}" if search.waits_for else ""
    results.write_line(f"{name} is {search.state} at {client.url}{why}")
    _print_hints(options, name)
    print_json(options, search)
    return 0


def _without_urls(given: Sequence[str]) -> list[str]:
    """Return arguments without --notify, which may be shortened, and its values."""
    kept: list[str] = []
    words = iter(given)
    for word in words:
        option, equals, _ = word.partition("=")
        if not (option.startswith("--no") and "--notify".startswith(option)):
            kept.append(word)
        elif not equals:
            next(words)
    return kept
