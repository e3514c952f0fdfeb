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
from tuner.arguments.data import add_data, add_tokenizer
from tuner.arguments.home import add_backup, add_clean, add_delete, add_doctor, add_restore, add_ui
from tuner.arguments.knowledge import add_suggest
from tuner.arguments.option_types import override, run_name, setting, whole
from tuner.arguments.search import add_job, add_jobs, add_search, add_server
from tuner.arguments.serve import add_serve
from tuner.arguments.topics import TOPICS
from tuner.arguments.trained import (
    add_export,
    add_generate,
    add_replay,
    add_report,
    add_scaling,
    add_show,
    add_transfer,
)
from tuner.texts.control_characters import visible

SHELLS = ("bash", "zsh", "fish")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `command` in the namespace is such as `search` or `data info`."""
    parser = _parser()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    options.given = given[1:]  # what follows the command
    if not hasattr(options, "command"):  # `tuner` alone
        parser.print_help(sys.stderr)
        parser.exit(2, "\ntuner: error: give a COMMAND\n")
    if getattr(options, "space", "") is None and not getattr(options, "resume", None):
        options.refuse(
            "--space FILE is missing; 'tuner init' writes a file to begin with, and --space lm "
            "takes the shipped one"
        )
    return options


class _GroupedHelp(argparse.HelpFormatter):
    """Help of `tuner` itself: its commands in groups."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        commands = {command.dest: command for command in action._choices_actions}
        listed = {name for topic in TOPICS.values() for name in topic.commands}
        others = tuple(name for name in commands if name not in listed)
        format_command, lines = super()._format_action, []
        groups = {topic.title: topic.commands for topic in TOPICS.values()}
        for title, names in {**groups, "other": others}.items():
            lines += [f"\n  {title}:\n"] if names else []
            self._indent()
            lines += [format_command(commands[name]) for name in names]
            self._dedent()
        return "".join(lines)


class _Parser(argparse.ArgumentParser):
    """A parser that shows the control characters of what it quotes; its commands have its class."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message."""
        super().error(visible(message))


def _of_spaces() -> tuple[argparse.ArgumentParser, ...]:
    """Return the options of commands about spaces: changes of one, its file too, and its size."""
    changes = argparse.ArgumentParser(add_help=False)
    changes.add_argument(
        "--set", dest="overrides", action="append", default=[], type=setting, metavar="KEY=VALUE",
        help="override a value of the file, such as budget.tokens=20000; may be repeated",
    )  # fmt: skip
    file = argparse.ArgumentParser(add_help=False, parents=[changes])
    file.add_argument(
        "--space", metavar="FILE",
        help="search-space file (YAML), or the name of a shipped study such as lm",
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
    return changes, file, space


def _of_all() -> tuple[argparse.ArgumentParser, ...]:
    """Return the parents with --debug, with --debug and --json, with --home, and with --server."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument(
        "--debug",
        action="store_true",
        help="show tracebacks; a search keeps Ray's logs, and says what each step took",
    )
    common = argparse.ArgumentParser(add_help=False, parents=[debug])
    common.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line of output"
    )
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument(
        "--home", metavar="DIR", help="folder of the searches (default: TUNER_HOME or ./runs)"
    )
    remote = argparse.ArgumentParser(add_help=False)
    add_server(remote)
    return debug, common, home, remote


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tuner",
        description="Hyperparameter search for Transformers: many trials train as one model, and "
        "the winner replays bit for bit. 'tuner search --space lm' begins; 'tuner help TOPIC' says "
        "more of a group.",
        formatter_class=_GroupedHelp,
    )
    parser.add_argument("--version", action="version", version=f"tuner {tuner.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    debug, common, home, remote = _of_all()
    changes, file, space = _of_spaces()

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
    add_search(search)
    add_jobs(command, common, space, home)
    text = "retrain a trial and verify that it reproduces"
    add_replay(command("replay", text, common, home, remote))
    text = "send what MLflow, the storage and receivers of messages missed"
    add_job(command("sync", text, common, home), "sync")
    add_ui(command("ui", "compare the runs in MLflow", debug, home))
    validate = command(
        "validate", "explain a search space without running it", common, space, home, remote
    )
    validate.add_argument(
        "--plot", metavar="FILE.html", help="draw the learning rates of the space on a page"
    )
    _add_init(
        command("init", "write a space to this folder: for your own text, or a study", common)
    )
    command("symbols", "print the symbol table", common)
    command("list", "list past searches", common, home)
    add_show(command("show", "show the trials of a search", common, home, remote))
    text = "compare trials, or searches, side by side: their differences and results"
    compare = command("compare", text, common, home, remote)
    compare.add_argument(
        "runs",
        nargs="+",
        type=run_name,
        metavar="RUN",
        help="two or more run ids, SEARCH/TRIAL such as lm-1/13, or names of searches",
    )
    add_report(
        command("report", "write a search as one HTML file with plots", common, home, remote)
    )
    add_data(group("data", "prepare and inspect the data of a search space"), command, common,
              file, home)  # fmt: skip
    add_tokenizer(group("tokenizer", "train, use and inspect a tokenizer"), command, common)
    for name, text, add in (
        ("delete", "delete a search, its runs and its files", add_delete),
        ("clean", "delete files that no search needs", add_clean),
        ("backup", "write a home to one file, also while searches run", add_backup),
        ("restore", "make a home from a backup", add_restore),
    ):
        add(command(name, text, common, home))
    text = "generate text with trained trials"
    add_generate(command("generate", text, common, home, remote))
    text = "export a trained trial to other tools"
    add_export(command("export", text, common, home, remote))
    add_transfer(command("transfer", "go from a search's proxy to its target", common, home))
    add_scaling(command("scaling", "fit scaling laws, and predict a larger model", common, home))
    text = "say which settings are probably best"
    add_suggest(command("suggest", text, common, changes, home))
    add_serve(command("serve", "serve searches to everybody who shares the machines", debug, home))
    add_doctor(command("doctor", "check the installation", common, home))
    text = "print a script with which a shell completes commands, options and names of searches"
    completion = command("completion", text, debug)
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(parser=parser)
    about = command("help", "say what a group of commands is for, or how one is used", debug)
    about.add_argument(
        "topic", nargs="?", metavar="TOPIC", help=f"{', '.join(TOPICS)}, or the name of a command"
    )
    about.set_defaults(parser=parser, topics=TOPICS)
    return parser


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument(
        "study", nargs="?", default="lm", metavar="STUDY|FILE",
        help="name of a study (default: lm); or files, folders or patterns of your own text; or "
        "the folder of a pretrained model, and a file",
    )  # fmt: skip
    init.add_argument("files", nargs="*", metavar="FILE", help="further files")
    init.add_argument("--list", action="store_true", help="list the studies")
    init.add_argument(
        "--model", metavar="FOLDER", help="of finetune: a pretrained model of Hugging Face"
    )
    init.add_argument("--data", metavar="FILE", help="of finetune: documents, such as a .jsonl")
    init.add_argument(
        "--plain", action="store_true", help="of files: without suggested values, which take time"
    )
    init.add_argument("--force", action="store_true", help="replace the file if it exists")
