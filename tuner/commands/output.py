"""Functions that commands share: output streams, messages, and objects named by options."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from tuner.errors import TunerError
from tuner.texts.control_characters import in_json, visible
from tuner.texts.secrets import MaskedStream, masked

if TYPE_CHECKING:  # `cli` imports this module at every start
    from model.engine.report import Report
    from tuner.home.home import Home
    from tuner.space.space import SearchSpace
    from tuner.terminal.console import PlainConsole
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
    sys.stderr.write(f"{visible(masked(message))}\n")


def consoles(options: argparse.Namespace) -> tuple[PlainConsole, PlainConsole]:
    """Return the consoles for results and for progress.

    Progress goes to standard error; with --json results do too, so that standard output holds
    only the object.
    """
    from tuner.terminal.console import PlainConsole  # loads rich

    class Results(PlainConsole):
        def on_broken_pipe(self) -> None:
            raise  # rich calls this in its handler; `cli` knows the exit status

    def settings(stream: TextIO) -> dict[str, Any]:
        # a pipe has no width, and tables need not be cut for it
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return {"file": cast(TextIO, MaskedStream(stream)), "width": width}

    progress = PlainConsole(**settings(sys.stderr))
    if options.json:
        return progress, progress
    return Results(**settings(sys.stdout)), progress


def print_data(text: str) -> None:
    """Print data on standard output: unchanged for a program, without control characters for eyes.

    A program or a file wants the data as it is; a terminal would obey its escape sequences.
    """
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)


def print_json(options: argparse.Namespace, value: object) -> None:
    """Print the object of --json, if the option was given."""
    if options.json:
        is_ascii = not _is_unicode(sys.stdout)
        text = masked(json.dumps(as_json(value), ensure_ascii=is_ascii, allow_nan=False))
        sys.stdout.write(in_json(text) + "\n")


def as_json(value: Any) -> Any:
    """Return a value as JSON: a dataclass as its fields, a path as text, NaN and ∞ as null.

    An object whose JSON is not its fields says so by a property `as_json`.
    """
    if hasattr(value, "as_json"):
        value = value.as_json
    elif hasattr(value, "model_dump"):  # of pydantic
        value = value.model_dump(mode="json")
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def kept_umask() -> Iterator[None]:
    """Restore the umask at the end, which a command sets for its home: `main` may be a call."""
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        yield
    finally:
        os.umask(umask)


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
    sys.stderr.write(f"{visible(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def in_utf8(text: str) -> str:
    """Replace the lone surrogates by which Python marks arguments that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def home_of(options: argparse.Namespace, *, create: bool = True) -> Home:
    """Return the home of the searches to write to it, created if it is missing.

    New files of this command then have the permissions of the home.
    """
    from tuner.home.home import Home

    home = Home.at(options.home, say, create=create)
    home.set_umask()
    return home


def recorded_home(options: argparse.Namespace) -> Home:
    """Return the home of the searches to read them; raise RecordError if there is none."""
    from tuner.home.home import Home

    return Home.recorded(options.home, say)


def home_option(options: argparse.Namespace) -> str:
    """Return ` --home DIR` or ` --server URL` as given, for commands that a message proposes."""
    if getattr(options, "server", None):
        return f" --server {shlex.quote(options.server)}"
    return f" --home {shlex.quote(options.home)}" if options.home else ""


def space_of(options: argparse.Namespace) -> SearchSpace:
    """Load the space of --space, changed by --set."""
    from tuner.space_file.load import load_space

    say_study(options)
    return load_space(options.space, options.overrides)


def say_study(options: argparse.Namespace) -> None:
    """Say which file the name of a study in --space stands for."""
    from tuner.space_file.shipped import find_space

    path = find_space(options.space)
    if path is not None:
        where = "comes with tuner" if path.is_absolute() else "is in this folder"
        say(f"--space {options.space}: {path}, which {where}")


def check_run(options: argparse.Namespace) -> None:
    """Raise TunerError if both a run and --search name the trial."""
    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")


def report_line(number: int, count: int, report: Report) -> str:
    """Return a line on a report of a retraining."""
    return f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}"


def load_weights(
    options: argparse.Namespace, progress: PlainConsole, run: str | None
) -> TrainedTrial:
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
        progress.print(report_line(number, count, report))

    with show_progress(progress) as on_progress:
        return load_trial(
            run,
            search=options.search,
            home=recorded_home(options),
            on_report=on_report,
            on_progress=on_progress,
        )
