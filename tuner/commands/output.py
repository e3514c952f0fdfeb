"""Functions that commands share: output streams, messages, and objects named by options."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from tuner.errors import TunerError
from tuner.secrets import MaskedStream, masked

if TYPE_CHECKING:  # `cli` imports this module at every start
    from rich.console import Console

    from tuner.home import Home
    from tuner.space.space import SearchSpace
    from tuner.trained.load_trial import TrainedTrial

INTERRUPTED = 130  # exit status
_PIPE_WIDTH = 200


def say(message: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{masked(message)}\n")


def consoles(options: argparse.Namespace) -> tuple[Console, Console]:
    """Return the consoles for results and for progress.

    Progress goes to standard error; with --json results do too, so that standard output holds
    only the object.
    """
    from rich.console import Console

    def console(stream: TextIO) -> Console:
        # a pipe has no width, and tables need not be cut for it
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return Console(file=cast(TextIO, MaskedStream(stream)), width=width)

    progress = console(sys.stderr)
    return (progress if options.json else console(sys.stdout)), progress


def print_json(options: argparse.Namespace, value: dict[str, Any]) -> None:
    """Print the object of --json, if the option was given."""
    if options.json:
        sys.stdout.write(masked(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n")


def in_utf8(text: str) -> str:
    """Replace the lone surrogates by which Python marks arguments that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def home_of(options: argparse.Namespace, *, create: bool = True) -> Home:
    """Return the home of the searches to write to it, created if it is missing."""
    from tuner.home import Home

    return Home.at(options.home, say, create=create)


def recorded_home(options: argparse.Namespace) -> Home:
    """Return the home of the searches to read them; raise RecordError if there is none."""
    from tuner.home import Home

    return Home.recorded(options.home, say)


def space_of(options: argparse.Namespace) -> SearchSpace:
    """Load the space of --space, changed by --set."""
    from tuner.space_file.load import load_space

    return load_space(options.space, options.overrides)


def check_run(options: argparse.Namespace) -> None:
    """Raise TunerError if both a run and --search name the trial."""
    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")


def load_weights(options: argparse.Namespace, progress: Console, run: str | None) -> TrainedTrial:
    """Load a trial with its weights; if it must be retrained, say why and show the progress.

    Args:
        options: with `search` and `home`.
        progress: console for messages.
        run: id of the run; None for the best trial.
    """
    from tuner.terminal.progress import show_progress
    from tuner.trained.load_trial import load_trial

    def on_report(number: int, count: int, report: Any) -> None:
        if number == 1:
            which = f"run {run}" if run else "the best trial"
            progress.print(f"{which}: its weights were not kept, so the trial is retrained")
        progress.print(
            f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}",
            highlight=False,
        )

    with show_progress(progress) as on_progress:
        return load_trial(
            run,
            search=options.search,
            home=recorded_home(options),
            on_report=on_report,
            on_progress=on_progress,
        )
