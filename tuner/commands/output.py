"""What commands share: where results and messages go, and what options name."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.home import Home
    from tuner.space import SearchSpace

INTERRUPTED = 130  # exit status
_PIPE_WIDTH = 200


def say(message: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{message}\n")


def consoles(options: argparse.Namespace) -> tuple[Console, Console]:
    """Where results and where progress go. With --json only the object goes to standard output."""
    from rich.console import Console

    def console(stream: TextIO) -> Console:
        # a pipe has no width, and tables need not be cut for it
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return Console(file=stream, width=width)

    progress = console(sys.stderr)
    return (progress if options.json else console(sys.stdout)), progress


def print_json(options: argparse.Namespace, value: dict[str, Any]) -> None:
    """The object that --json promises, if it was given."""
    if options.json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def in_utf8(text: str) -> str:
    """A text of the command line, where lone surrogates stand for what is no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def home_of(options: argparse.Namespace) -> Home:
    """Where the user's searches live."""
    from tuner.home import Home

    return Home.at(options.home)


def space_of(options: argparse.Namespace) -> SearchSpace:
    """The space of --space, with what --set changes."""
    from tuner.space_file import load_space

    return load_space(options.space, options.overrides)
