"""The commands. They are thin: all that they do can be done from Python.

Exit status 0: done; 1: the result is bad; 2: bad input or usage. Heavy modules are imported where
a command needs them, so that `tuner --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import tuner
from tuner.errors import SpaceError, TunerError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.home import Home
    from tuner.space import SearchSpace

_INTERRUPTED = 130
_PIPE_WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.call(options)
    except KeyboardInterrupt:
        _say("interrupted; what was recorded is kept ('tuner list')")
        return _INTERRUPTED
    except BrokenPipeError:  # `tuner list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug or not _is_users(error):
            raise
        # mistakes of a file come as lines file:line:column, which editors can follow
        _say(str(error) if isinstance(error, SpaceError) else f"tuner {options.command}: {error}")
        return error.exit_status if isinstance(error, TunerError) else 2
    return status


def _is_users(error: Exception) -> bool:
    """Whether the user can put it right, so that a sentence says more than a traceback."""
    if isinstance(error, TunerError):
        return True
    # not imported unless something raised: errors of `model`
    return type(error).__name__ in {"CorpusError", "CheckpointError"}


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tuner",
        description="Hyperparameter search for Transformers: many trials train as one model, and "
        "the winner replays bit for bit.",
    )
    parser.add_argument("--version", action="version", version=f"tuner {tuner.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show tracebacks")
    common = argparse.ArgumentParser(add_help=False, parents=[debug])
    common.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line of output"
    )
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument(
        "--home", metavar="DIR", help="where searches live (default: TUNER_HOME or ./runs)"
    )
    space = argparse.ArgumentParser(add_help=False)
    space.add_argument("--space", metavar="FILE", required=True, help="search-space file (YAML)")
    for name, part, low, high in (
        ("trials", "search", 1, 10**6),
        ("seed", "search", 0, 2**32 - 1),
        ("workers", "engine", 1, 4096),
    ):
        text = f"instead of {part}.{name}"
        space.add_argument(f"--{name}", type=_whole(low, high), metavar="N", help=text)

    def command(name: str, text: str, call: Any, *parents: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=parents)
        made.set_defaults(call=call)
        return made

    search = command("search", "find the best hyperparameters", _search, common, space, home)
    search.add_argument("--name", type=_name, help="of the search (default: space name and number)")
    replay = command(
        "replay", "retrain a trial and prove that it reproduces", _replay, common, home
    )
    replay.add_argument("run", nargs="?", metavar="RUN", help="run id (default: the best trial)")
    replay.add_argument("--search", metavar="NAME", help="best trial of this search")
    ui = command("ui", "compare the runs in MLflow", _ui, debug, home)
    ui.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    ui.add_argument(
        "--port", type=_whole(1, 65535), help="port (default: the first free one from 5000)"
    )
    validate = command(
        "validate",
        "say what a search space means, without running it",
        _validate,
        common,
        space,
        home,
    )
    validate.add_argument(
        "--plot", metavar="FILE.png", help="draw the learning rates that the space can draw"
    )
    command("symbols", "print the symbol table", _symbols, common)
    command("list", "list past searches", _list, common, home)
    show = command("show", "show the trials of a search", _show, common, home)
    show.add_argument("run", nargs="?", metavar="RUN", help="run id of one trial to show in full")
    show.add_argument("--search", metavar="NAME", help="which search (default: the newest)")
    command("doctor", "check the installation", _doctor, common, home)
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            message = f"must be a whole number from {low} to {high}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse


def _name(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_." for c in text) or not text[0].isalnum():
        raise argparse.ArgumentTypeError("use letters, digits, '-', '_' and '.', got " + repr(text))
    return text


def _consoles(options: argparse.Namespace) -> tuple[Console, Console]:
    """Where results and where progress go. With --json only the object goes to standard output."""
    from rich.console import Console

    def console(stream: TextIO) -> Console:
        # a pipe has no width, and tables need not be cut for it
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return Console(file=stream, width=width)

    progress = console(sys.stderr)
    return (progress if options.json else console(sys.stdout)), progress


def _print_json(options: argparse.Namespace, value: dict[str, Any]) -> None:
    if options.json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _home(options: argparse.Namespace) -> Home:
    from tuner.home import Home

    return Home.at(options.home)


def _space(options: argparse.Namespace) -> SearchSpace:
    from tuner.space_file import load_space

    space = load_space(options.space)
    changes = {"trials": options.trials, "seed": options.seed}
    search = space.search.model_copy(update={k: v for k, v in changes.items() if v is not None})
    engine = space.engine
    if options.workers:
        engine = engine.model_copy(update={"workers": options.workers})
    if search.trials < len(space.grid):
        raise TunerError(
            f"--trials {search.trials}: the grid of {options.space} has {len(space.grid)} points"
        )
    return space.model_copy(update={"search": search, "engine": engine})


# commands ----------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> int:
    from pathlib import Path

    space, home = _space(options), _home(options)

    from tuner.live import LiveView, LogView
    from tuner.search import search
    from tuner.summary import print_summary

    results, progress = _consoles(options)
    result = search(
        space,
        name=options.name,
        home=home,
        view=LiveView(progress) if progress.is_terminal else LogView(progress),
        space_text=Path(options.space).read_text(encoding="utf-8"),
    )
    print_summary(results, result, space)
    best = result.best
    _print_json(
        options,
        {
            "search": result.name,
            "best_trial": best.number,
            "best_run": result.run_ids.get(best.number),
            "hyperparameters": best.spec.hyperparameters.model_dump(),
            "architecture": best.spec.architecture.model_dump(),
            **result.summary(),
        },
    )
    if result.problem:
        _say(f"tuner search: {result.problem}; the checkpoints stay in {home.search(result.name)}")
        return TunerError.exit_status
    return _INTERRUPTED if result.interrupted else 0


def _replay(options: argparse.Namespace) -> int:
    from tuner.replay import Verdict, replay

    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")
    results, progress = _consoles(options)

    def on_report(number: int, count: int, report: Any) -> None:
        progress.print(
            f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}",
            highlight=False,
        )

    result = replay(
        options.run,
        search=options.search,
        home=_home(options),
        on_report=on_report,
        progress=lambda message: progress.print(message, style="dim"),
    )
    trial = result.trial
    style = {"bit-exact": "bold green", "within tolerance": "yellow"}.get(
        result.verdict, "bold red"
    )
    results.print(
        f"trial {trial.number} of {trial.search} (run {trial.run_id[:8]}, {trial.status}):",
        soft_wrap=True,
    )
    results.print(result.sentence, style=style, soft_wrap=True, highlight=False)
    _print_json(
        options,
        {
            "verdict": str(result.verdict),
            "run": trial.run_id,
            "trial": trial.number,
            "search": trial.search,
            "reports": result.reports,
            "differences": len(result.differences),
            "spec_hash": result.spec.hash,
            "changed": {k: list(v) for k, v in result.changed.items()},
        },
    )
    return 1 if result.verdict is Verdict.DIFFERENT else 0


def _ui(options: argparse.Namespace) -> int:
    from tuner.ui import serve

    return serve(_home(options), options.host, options.port, _say)


def _validate(options: argparse.Namespace) -> int:
    from tuner.home import home_path
    from tuner.inspect import describe_space

    space = _space(options)
    results, _ = _consoles(options)
    home = home_path(options.home)  # not a Home, which would be made: validating writes nothing
    described = describe_space(results, space, options.space, home, options.plot)
    _print_json(options, described)
    return 0


def _symbols(options: argparse.Namespace) -> int:
    from tuner.inspect import print_symbols

    results, _ = _consoles(options)
    _print_json(options, print_symbols(results))
    return 0


def _list(options: argparse.Namespace) -> int:
    from tuner.inspect import print_searches
    from tuner.record import Record

    results, _ = _consoles(options)
    _print_json(options, print_searches(results, Record(_home(options).tracking_uri)))
    return 0


def _show(options: argparse.Namespace) -> int:
    from tuner.inspect import print_search, print_trial
    from tuner.record import Record

    results, _ = _consoles(options)
    record = Record(_home(options).tracking_uri)
    if options.run:
        shown = print_trial(results, record, record.trial(options.run))
    else:
        shown = print_search(results, record, record.search(options.search))
    _print_json(options, shown)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from tuner.doctor import examine

    results, _ = _consoles(options)
    findings = examine(results, _home(options))
    _print_json(options, {name: finding for name, (_, finding) in findings.items()})
    return 0 if all(ok for ok, _ in findings.values()) else 1
