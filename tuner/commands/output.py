"""What commands share: where results and messages go, and what options name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tuner.errors import TunerError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.trained.load_trial import TrainedTrial

import json
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.home import Home
    from tuner.space.space import SearchSpace

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
    from tuner.space_file.load import load_space

    return load_space(options.space, options.overrides)


def check_run(options: argparse.Namespace) -> None:
    """Raise TunerError if a trial is named twice."""
    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")


def loaded(options: argparse.Namespace, progress: Console, run: str | None) -> TrainedTrial:
    """A trial with its weights; whoever waits for a retraining is told why.

    Args:
        options: with `search` and `home`.
        progress: where messages go.
        run: id of its run; None for the best trial.
    """
    from tuner.terminal.progress import shown
    from tuner.trained.load_trial import load_trial

    def on_report(number: int, count: int, report: Any) -> None:
        if number == 1:
            which = f"run {run}" if run else "the best trial"
            progress.print(f"{which}: its weights were not kept, so it is trained again")
        progress.print(
            f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}",
            highlight=False,
        )

    with shown(progress) as on_progress:
        return load_trial(
            run,
            search=options.search,
            home=home_of(options),
            on_report=on_report,
            on_progress=on_progress,
        )
