"""Options of the commands that begin searches, and of those for searches of other processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tuner.arguments.option_types import duration, new_name, override, search_name, whole
from tuner.space_file.overrides import Override

PRIORITIES = ("low", "normal", "high", "urgent")
_JOBS = {  # commands for searches that other processes run
    "status": "say how far searches are",
    "attach": "show the live view of a search that another process runs",
    "logs": "print what a submitted search has printed",
    "stop": "end a search that another process runs; it can go on later",
}


def add_search(search: argparse.ArgumentParser) -> None:
    """Add the options of `tuner search` and `tuner submit`."""
    identity = search.add_mutually_exclusive_group()
    identity.add_argument(
        "--name",
        type=new_name,
        help="name of the search (default: name of the space, and a number)",
    )
    identity.add_argument(
        "--resume", type=search_name, metavar="NAME",
        help="resume a search that was interrupted or killed, or that needs more --trials",
    )  # fmt: skip
    search.add_argument(
        "--address", metavar="ADDRESS",
        help="Ray cluster to train on: HOST:PORT of its head, or auto for that of this machine "
        "(default: RAY_ADDRESS, or no cluster)",
    )  # fmt: skip
    search.add_argument(
        "--notify", action="append", default=[], metavar="URL",
        help="tell this webhook, or URL of Apprise, how the search ends; may be repeated",
    )  # fmt: skip
    search.add_argument(
        "--suggest", dest="overrides", action="append_const",
        const=Override.parse("search.learn_from=auto"),
        help="begin with what earlier searches and the atlas suggest: search.learn_from=auto",
    )  # fmt: skip
    search.add_argument("--quiet", action="store_true", help="show no progress, only the result")
    search.add_argument(
        "--fresh", action="store_true",
        help="do not reuse results of identical trials",
    )  # fmt: skip
    for option, name, metavar, parse_value, text in (
        (
            "--max-time",
            "max_seconds",
            "TIME",
            duration,
            "stop after this time: 90s, 1h30m, 1:30:00",
        ),
        ("--max-tokens", "max_tokens", "N", whole(1, 2**53), "stop after N training tokens"),
        (
            "--patience",
            "patience",
            "N",
            whole(1, 10**6),
            "stop after N trials without improvement",
        ),
    ):
        search.add_argument(
            option, dest="overrides", action="append", metavar=metavar, help=text,
            type=override("search", name, parse_value, option),
        )  # fmt: skip


def add_jobs(
    command: Callable[..., argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    space: argparse.ArgumentParser,
    home: argparse.ArgumentParser,
) -> None:
    """Add `submit` and the commands for searches that other processes run."""
    text = "begin or go on with a search in a process of its own, which outlives the terminal"
    submit = command("submit", text, common, space, home)
    add_search(submit)
    submit.add_argument(
        "--priority", choices=PRIORITIES,
        help="with --server: class in its queue (default: normal)",
    )  # fmt: skip
    add_server(submit)
    for name, text in _JOBS.items():
        job = command(name, text, common, home)
        add_job(job, name)
        add_server(job)
    edit = command("edit", "give a search that runs another space", common, home)
    add_job(edit, "edit")
    edit.add_argument("--space", metavar="FILE", help="file of the edited space")
    edit.set_defaults(overrides=[])
    add_server(edit)
    login = command("login", "keep the token of a server for the commands of this user", common)
    login.add_argument("url", metavar="URL", help="the server, as https://tuner.example")


def add_server(command: argparse.ArgumentParser) -> None:
    """Add the server that has the searches of a command."""
    command.add_argument(
        "--server", metavar="URL",
        help="ask this 'tuner serve' instead of a home (default: TUNER_SERVER, unless --home is "
        "given)",
    )  # fmt: skip


def add_job(job: argparse.ArgumentParser, name: str) -> None:
    """Add the options of a command for a search that another process runs, or ran."""
    may_be_all = name in {"status", "sync"}
    job.add_argument(
        "search", type=search_name, metavar="NAME", nargs="?" if may_be_all else None,
        help="name of the search" + (" (default: all searches)" if may_be_all else ""),
    )  # fmt: skip
    if name == "logs":
        job.add_argument("-f", "--follow", action="store_true", help="go on until the search ends")
    if name == "stop":
        job.add_argument("--now", action="store_true", help="do not wait for the reports under way")
