"""Parser of the command line: commands, options and their help texts.

Nothing heavy is imported, so choices and defaults are repeated here; tests compare them with the
registries and with `GenerationSettings`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import tuner
from tuner.commands.output import in_utf8
from tuner.control_characters import visible
from tuner.data_arguments import add_data, add_tokenizer
from tuner.option_types import (
    duration,
    new_name,
    override,
    real,
    run_name,
    search_name,
    setting,
    whole,
)

SHELLS = ("bash", "zsh", "fish")
EXPORTS = ("hf", "gguf", "torch")
_RUN = "run id, or SEARCH/TRIAL such as lm-1/13 (default: the best trial)"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `command` in the namespace is such as `search` or `data info`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):  # `tuner` alone
        parser.print_help(sys.stderr)
        parser.exit(2, "\ntuner: error: give a COMMAND\n")
    if getattr(options, "space", "") is None and not getattr(options, "resume", None):
        options.refuse(
            "--space FILE is missing; 'tuner init' writes a file to begin with, and --space lm "
            "takes the shipped one"
        )
    return options


class _Parser(argparse.ArgumentParser):
    """A parser that shows the control characters of what it quotes; its commands have its class."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message."""
        super().error(visible(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tuner",
        description="Hyperparameter search for Transformers: many trials train as one model, and "
        "the winner replays bit for bit.",
    )
    parser.add_argument("--version", action="version", version=f"tuner {tuner.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument(
        "--debug", action="store_true", help="show tracebacks; a search keeps Ray's logs"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[debug])
    common.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line of output"
    )
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument(
        "--home", metavar="DIR", help="folder of the searches (default: TUNER_HOME or ./runs)"
    )
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument(
        "--space", metavar="FILE",
        help="search-space file (YAML), or the name of a shipped study such as lm",
    )  # fmt: skip
    file.add_argument(
        "--set", dest="overrides", action="append", default=[], type=setting, metavar="KEY=VALUE",
        help="override a value of the file, such as budget.tokens=20000; may be repeated",
    )  # fmt: skip
    space = argparse.ArgumentParser(add_help=False, parents=[file])
    for name, part, low, high in (
        ("trials", "search", 1, 10**6),
        ("seed", "search", 0, 2**32 - 1),
        ("workers", "engine", 1, 4096),
    ):
        space.add_argument(
            f"--{name}", dest="overrides", action="append", default=[], metavar="N",
            type=override(part, name, whole(low, high)), help=f"override {part}.{name}",
        )  # fmt: skip

    def command(
        name: str, text: str, *parents: argparse.ArgumentParser, of: Any = commands
    ) -> argparse.ArgumentParser:
        subparser: argparse.ArgumentParser = of.add_parser(
            name.split()[-1], help=text, description=text, parents=parents
        )
        subparser.set_defaults(command=name, refuse=subparser.error)
        return subparser

    def group(name: str, text: str) -> Any:
        subparser = commands.add_parser(name, help=text, description=text)
        return subparser.add_subparsers(metavar="ACTION", required=True)

    search = command("search", "find the best hyperparameters", common, space, home)
    _add_search(search)
    _add_replay(command("replay", "retrain a trial and verify that it reproduces", common, home))
    text = "upload events that MLflow missed"
    sync = command("sync", text, common, home)
    sync.add_argument(
        "search",
        nargs="?",
        type=search_name,
        metavar="NAME",
        help="name of a search (default: all searches)",
    )
    _add_ui(command("ui", "compare the runs in MLflow", debug, home))
    text = "explain a search space without running it"
    validate = command("validate", text, common, space, home)
    validate.add_argument(
        "--plot", metavar="FILE.png", help="draw the learning rates of the space to this file"
    )
    _add_init(command("init", "write the commented space of a study to this folder", common))
    command("symbols", "print the symbol table", common)
    command("list", "list past searches", common, home)
    _add_show(command("show", "show the trials of a search", common, home))
    text = "compare trials side by side: their differences and curves"
    compare = command("compare", text, common, home)
    compare.add_argument(
        "runs",
        nargs="+",
        type=run_name,
        metavar="RUN",
        help="two or more run ids, or SEARCH/TRIAL such as lm-1/13",
    )
    report = command("report", "write a search as one HTML file with plots", common, home)
    _add_report(report)
    add_data(group("data", "prepare and inspect the data of a search space"), command, common,
              file, home)  # fmt: skip
    add_tokenizer(group("tokenizer", "train, use and inspect a tokenizer"), command, common)
    _add_delete(command("delete", "delete a search, its runs and its files", common, home))
    _add_clean(command("clean", "delete files that no search needs", common, home))
    _add_generate(command("generate", "generate text with trained trials", common, home))
    _add_export(command("export", "export a trained trial to other tools", common, home))
    _add_transfer(
        command("transfer", "measure whether a search's proxy stands for its target", common, home)
    )
    command("doctor", "check the installation", common, home)
    text = "print a script with which a shell completes commands, options and names of searches"
    completion = command("completion", text, debug)
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(parser=parser)
    return parser


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument(
        "study", nargs="?", default="lm", metavar="STUDY", help="name of the study (default: lm)"
    )
    init.add_argument("--list", action="store_true", help="list the studies")
    init.add_argument("--force", action="store_true", help="replace the file if it exists")


def _add_trial(command: argparse.ArgumentParser) -> None:
    """Add the two ways to name one trial."""
    command.add_argument("run", nargs="?", type=run_name, metavar="RUN", help=_RUN)
    command.add_argument(
        "--search", type=search_name, metavar="NAME", help="take the best trial of this search"
    )


def _add_replay(replay: argparse.ArgumentParser) -> None:
    _add_trial(replay)
    replay.add_argument(
        "--prepared",
        action="store_true",
        help="train on the prepared copy of the data, though the data has changed since or is gone",
    )


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument(
        "run", nargs="?", type=run_name, metavar="RUN",
        help="show this trial in full: run id, or SEARCH/TRIAL such as lm-1/13",
    )  # fmt: skip
    show.add_argument(
        "--search",
        type=search_name,
        metavar="NAME",
        help="name of the search (default: the newest)",
    )
    show.add_argument(
        "--by",
        type=in_utf8,
        metavar="PARAMETER",
        help="group the trials by the value of a parameter, such as optimizer",
    )
    show.add_argument(
        "--csv", action="store_true",
        help="print the trials, the reports of RUN, or the groups of --by as CSV",
    )  # fmt: skip


def _add_generate(generate: argparse.ArgumentParser) -> None:
    _add_trial(generate)
    generate.add_argument(
        "--runs",
        nargs="+",
        type=run_name,
        metavar="RUN",
        help="several trials, shown side by side",
    )
    prompt = generate.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt", metavar="TEXT",
        help="text to continue, or to translate; - is standard input (default: start a document)",
    )  # fmt: skip
    prompt.add_argument("--file", metavar="FILE", help="read the prompt from a file")
    for name, parse_value, metavar, text in (
        ("temperature", real(0, 1000), "T", "divide the logits by T; 0 takes the most "
         "probable token (default: 0.8)"),
        ("top-k", whole(0, 2**31), "K", "draw from the K most probable tokens (default: 0, all)"),
        ("top-p", real(1e-9, 1), "P", "draw from the fewest tokens whose probabilities sum to P "
         "(default: 0.95)"),
        ("repetition-penalty", real(1e-3, 1000), "R", "above 1, make tokens less probable that "
         "occurred before (default: 1)"),
        ("max-tokens", whole(1, 10**6), "N", "largest number of tokens to write (default: 200)"),
        ("seed", whole(0, 2**63 - 1), "N", "seed of the random numbers; an equal seed writes an "
         "equal text (default: 0)"),
    ):  # fmt: skip
        generate.add_argument(f"--{name}", type=parse_value, metavar=metavar, help=text)
    generate.add_argument(
        "--samples", type=whole(1, 64), default=1, metavar="N",
        help="number of texts of each trial (default: %(default)s)",
    )  # fmt: skip


def _add_export(export: argparse.ArgumentParser) -> None:
    _add_trial(export)
    export.add_argument(
        "--format", choices=EXPORTS, default="hf",
        help="hf: a folder for Hugging Face transformers; gguf: for llama.cpp; torch: a plain "
        "state dict (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("-o", "--output", required=True, metavar="DIR", help="folder; new or empty")
    export.add_argument(
        "--force", action="store_true", help="replace an earlier export in the folder"
    )


def _add_transfer(transfer: argparse.ArgumentParser) -> None:
    transfer.add_argument(
        "search", nargs="?", type=search_name, metavar="SEARCH",
        help="name of a search with proxy: (default: the newest)",
    )  # fmt: skip
    transfer.add_argument(
        "--check", action="store_true",
        help="train several widths and depths for 50 updates and compare their activations",
    )  # fmt: skip
    transfer.add_argument(
        "--seeds", type=whole(2, 100), default=5, metavar="N",
        help="seeds of each model (default: %(default)s)",
    )  # fmt: skip
    transfer.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda", "mps"),
        help="device to train on (default: %(default)s)",
    )  # fmt: skip
    transfer.add_argument(
        "-o", "--output", metavar="FILE.png",
        help="path of the picture (default: SEARCH-coordinates.png)",
    )  # fmt: skip


def _add_ui(ui: argparse.ArgumentParser) -> None:
    ui.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    ui.add_argument(
        "--port", type=whole(1, 65535), help="port (default: the first free one from 5000)"
    )
    ui.add_argument(
        "--search", type=search_name, metavar="NAME", help="open this search (default: the newest)"
    )
    ui.add_argument(
        "--no-browser",
        dest="browser",
        action="store_false",
        help="print the link, do not open a browser",
    )


def _add_search(search: argparse.ArgumentParser) -> None:
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


def _add_delete(delete: argparse.ArgumentParser) -> None:
    delete.add_argument("search", type=search_name, metavar="SEARCH", help="name of the search")
    _add_yes(delete)
    delete.add_argument(
        "--models", action="store_true",
        help="delete the versions of registered models that come from the search, too",
    )  # fmt: skip
    delete.add_argument(
        "--force", action="store_true",
        help="delete the search although its space's champion comes from it",
    )  # fmt: skip


def _add_clean(clean: argparse.ArgumentParser) -> None:
    _add_yes(clean)
    clean.add_argument("--dry-run", action="store_true", help="delete nothing, say what would be")


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument(
        "--search",
        type=search_name,
        metavar="NAME",
        help="name of the search (default: the newest)",
    )
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="report.html",
        help="path of the page (default: %(default)s)",
    )
    report.add_argument(
        "--prompt", metavar="TEXT", default="",
        help="start of the texts of the best trials (default: start a document)",
    )  # fmt: skip
    report.add_argument("--png", metavar="DIR", help="also write the plots as PNGs to this folder")
    report.add_argument("--open", action="store_true", help="open the page in the browser")
