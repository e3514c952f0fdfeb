"""Functions that commands share: output streams, messages, and objects named by options."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tuner.errors import TunerError

if TYPE_CHECKING:  # `cli` imports this module at every start
    from rich.console import Console

    from tuner.home import Home
    from tuner.space.space import SearchSpace
    from tuner.trained.load_trial import TrainedTrial

PIPE_CLOSED = 141  # exit status: the reader of standard output left, as in `tuner list | head`
_PIPE_WIDTH = 200


def prepare_streams() -> None:
    """Let the streams escape what their encoding lacks, and replace a closed standard error."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the end
    stream = sys.stdout
    if hasattr(stream, "reconfigure") and (stream.errors == "strict" or not _is_unicode(stream)):
        stream.reconfigure(errors="backslashreplace")


def check_output() -> None:
    """Raise TunerError if standard output is closed: other files would get its descriptor."""
    if sys.stdout is None:
        raise TunerError("standard output is closed; direct it to a file or to /dev/null")


def output_problem() -> OSError | None:
    """Return why standard output cannot be written, and discard all later output; None if it can.

    The buffer of the stream may have lost the text that could not be written, so a line is added.
    """
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        return error
    return None


def discard_output() -> None:
    """Send standard output to nowhere, so that Python can flush it when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_unicode(stream: TextIO) -> bool:
    """Return whether a stream can have any character; one in memory has no encoding."""
    return (stream.encoding or "utf-8").lower().replace("_", "-").startswith("utf")


def say(message: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{message}\n")


def consoles(options: argparse.Namespace) -> tuple[Console, Console]:
    """Return the consoles for results and for progress.

    Progress goes to standard error; with --json results do too, so that standard output holds
    only the object.
    """
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich calls this in its handler; `cli` knows the exit status

    def width(stream: TextIO) -> int | None:
        # a pipe has no width, and tables need not be cut for it
        return None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH

    progress = Console(file=sys.stderr, width=width(sys.stderr))
    if options.json:
        return progress, progress
    return Results(file=sys.stdout, width=width(sys.stdout)), progress


def print_json(options: argparse.Namespace, value: dict[str, Any]) -> None:
    """Print the object of --json, if the option was given."""
    if options.json:
        is_ascii = not _is_unicode(sys.stdout)
        sys.stdout.write(json.dumps(value, ensure_ascii=is_ascii, allow_nan=False) + "\n")


def can_ask(options: argparse.Namespace) -> bool:
    """Return True if a user at a terminal can answer a question."""
    return not options.json and sys.stdin is not None and sys.stdin.isatty()


def confirmed(options: argparse.Namespace, question: str) -> bool:
    """Ask a question on a terminal; return True for yes, or if --yes was given.

    Raises:
        TunerError: if nobody can answer.
    """
    if options.yes:
        return True
    if not can_ask(options):
        raise TunerError("nobody can be asked; give --yes to delete")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def in_utf8(text: str) -> str:
    """Replace the lone surrogates by which Python marks arguments that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def home_of(options: argparse.Namespace) -> Home:
    """Return the home of the searches, created if it is missing."""
    from tuner.home import Home

    return Home.at(options.home)


def space_of(options: argparse.Namespace) -> SearchSpace:
    """Load the space of --space, changed by --set."""
    from tuner.space_file.load import load_space

    return load_space(options.space, options.overrides)


@contextmanager
def data_errors(options: argparse.Namespace) -> Iterator[None]:
    """Report data that cannot be used at its place in the file of --space."""
    from tuner.space_file.load import data_errors_located

    with data_errors_located(options.space, options.overrides):
        yield


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
            home=home_of(options),
            on_report=on_report,
            on_progress=on_progress,
        )
