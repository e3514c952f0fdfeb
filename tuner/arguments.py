"""Parser of the command line: commands, options and their help texts.

Nothing heavy is imported, so choices and defaults are repeated here; tests compare them with the
registries and with `GenerationSettings`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, cast

import tuner
from tuner.formatting import in_seconds
from tuner.space_file.overrides import Override

PATTERNS = ("gpt2", "gpt4", "whitespace")
TOKENIZER_FORMATS = ("huggingface", "gpt2", "tiktoken")
EXPORTS = ("hf", "gguf", "torch")
_END_OF_TEXT = "<|endoftext|>"
_RUN = "run id, or SEARCH/TRIAL such as lm-1/13 (default: the best trial)"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; `command` in the namespace is such as `search` or `data info`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if getattr(options, "space", "") is None and not getattr(options, "resume", None):
        parser.error(
            f"{options.command}: --space FILE is missing, for instance search_spaces/lm.yaml"
        )
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tuner",
        description="Hyperparameter search for Transformers: many trials train as one model, and "
        "the winner replays bit for bit.",
    )
    parser.add_argument("--version", action="version", version=f"tuner {tuner.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
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
    file.add_argument("--space", metavar="FILE", help="search-space file (YAML)")
    file.add_argument(
        "--set", dest="overrides", action="append", default=[], type=_setting, metavar="KEY=VALUE",
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
            type=_override(part, name, _whole(low, high)), help=f"override {part}.{name}",
        )  # fmt: skip

    def command(
        name: str, text: str, *parents: argparse.ArgumentParser, of: Any = commands
    ) -> argparse.ArgumentParser:
        subparser: argparse.ArgumentParser = of.add_parser(
            name.split()[-1], help=text, description=text, parents=parents
        )
        subparser.set_defaults(command=name)
        return subparser

    def group(name: str, text: str) -> Any:
        subparser = commands.add_parser(name, help=text, description=text)
        return subparser.add_subparsers(metavar="ACTION", required=True)

    search = command("search", "find the best hyperparameters", common, space, home)
    _add_search(search)
    replay = command("replay", "retrain a trial and verify that it reproduces", common, home)
    replay.add_argument("run", nargs="?", metavar="RUN", help=_RUN)
    replay.add_argument("--search", metavar="NAME", help="take the best trial of this search")
    text = "upload events that MLflow missed"
    sync = command("sync", text, common, home)
    sync.add_argument(
        "search", nargs="?", metavar="NAME", help="name of a search (default: all searches)"
    )
    _add_ui(command("ui", "compare the runs in MLflow", debug, home))
    text = "explain a search space without running it"
    validate = command("validate", text, common, space, home)
    validate.add_argument(
        "--plot", metavar="FILE.png", help="draw the learning rates of the space to this file"
    )
    command("symbols", "print the symbol table", common)
    command("list", "list past searches", common, home)
    show = command("show", "show the trials of a search", common, home)
    show.add_argument("run", nargs="?", metavar="RUN", help="show this trial in full (run id)")
    show.add_argument("--search", metavar="NAME", help="name of the search (default: the newest)")
    show.add_argument(
        "--by",
        metavar="PARAMETER",
        help="group the trials by the value of a parameter, such as optimizer",
    )
    text = "compare trials side by side: their differences and curves"
    compare = command("compare", text, common, home)
    compare.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="two or more run ids, or SEARCH/TRIAL such as lm-1/13",
    )
    report = command("report", "write a search as one HTML file with plots", common, home)
    _add_report(report)
    _add_data(group("data", "prepare and inspect the data of a search space"), command, common,
              file, home)  # fmt: skip
    _add_tokenizer(group("tokenizer", "train, use and inspect a tokenizer"), command, common)
    _add_generate(command("generate", "generate text with trained trials", common, home))
    _add_export(command("export", "export a trained trial to other tools", common, home))
    command("doctor", "check the installation", common, home)
    return parser


def _add_generate(generate: argparse.ArgumentParser) -> None:
    generate.add_argument("run", nargs="?", metavar="RUN", help=_RUN)
    generate.add_argument("--search", metavar="NAME", help="take the best trial of this search")
    generate.add_argument(
        "--runs", nargs="+", metavar="RUN", help="several trials, shown side by side"
    )
    prompt = generate.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt", metavar="TEXT",
        help="text to continue, or to translate; - is standard input (default: start a document)",
    )  # fmt: skip
    prompt.add_argument("--file", metavar="FILE", help="read the prompt from a file")
    for name, parse_value, metavar, text in (
        ("temperature", _real(0, 1000), "T", "divide the logits by T; 0 takes the most "
         "probable token (default: 0.8)"),
        ("top-k", _whole(0, 2**31), "K", "draw from the K most probable tokens (default: 0, all)"),
        ("top-p", _real(1e-9, 1), "P", "draw from the fewest tokens whose probabilities sum to P "
         "(default: 0.95)"),
        ("repetition-penalty", _real(1e-3, 1000), "R", "above 1, make tokens less probable that "
         "occurred before (default: 1)"),
        ("max-tokens", _whole(1, 10**6), "N", "largest number of tokens to write (default: 200)"),
        ("seed", _whole(0, 2**63 - 1), "N", "seed of the random numbers; an equal seed writes an "
         "equal text (default: 0)"),
    ):  # fmt: skip
        generate.add_argument(f"--{name}", type=parse_value, metavar=metavar, help=text)
    generate.add_argument(
        "--samples", type=_whole(1, 64), default=1, metavar="N",
        help="number of texts of each trial (default: %(default)s)",
    )  # fmt: skip


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("run", nargs="?", metavar="RUN", help=_RUN)
    export.add_argument("--search", metavar="NAME", help="take the best trial of this search")
    export.add_argument(
        "--format", choices=EXPORTS, default="hf",
        help="hf: a folder for Hugging Face transformers; gguf: for llama.cpp; torch: a plain "
        "state dict (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("-o", "--output", required=True, metavar="DIR", help="folder; new or empty")
    export.add_argument(
        "--force", action="store_true", help="replace an earlier export in the folder"
    )


def _add_ui(ui: argparse.ArgumentParser) -> None:
    ui.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    ui.add_argument(
        "--port", type=_whole(1, 65535), help="port (default: the first free one from 5000)"
    )
    ui.add_argument("--search", metavar="NAME", help="open this search (default: the newest)")
    ui.add_argument(
        "--no-browser",
        dest="browser",
        action="store_false",
        help="print the link, do not open a browser",
    )


def _add_search(search: argparse.ArgumentParser) -> None:
    identity = search.add_mutually_exclusive_group()
    identity.add_argument(
        "--name", type=_name, help="name of the search (default: name of the space, and a number)"
    )
    identity.add_argument(
        "--resume", metavar="NAME",
        help="resume a search that was interrupted or killed, or that needs more --trials",
    )  # fmt: skip
    search.add_argument(
        "--fresh", action="store_true",
        help="do not reuse results of identical trials",
    )  # fmt: skip
    for option, name, metavar, parse_value, text in (
        ("--max-time", "max_seconds", "TIME", _duration, "stop after this time: 90s, 10m, 2h"),
        ("--max-tokens", "max_tokens", "N", _whole(1, 2**53), "stop after N training tokens"),
        (
            "--patience",
            "patience",
            "N",
            _whole(1, 10**6),
            "stop after N trials without improvement",
        ),
    ):
        search.add_argument(
            option, dest="overrides", action="append", metavar=metavar, help=text,
            type=_override("search", name, parse_value, option),
        )  # fmt: skip


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("--search", metavar="NAME", help="name of the search (default: the newest)")
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


def _add_data(of: Any, command: Any, common: Any, file: Any, home: Any) -> None:
    text = "read, split and encode the data of a space before a search"
    prepare = command("data prepare", text, common, file, home, of=of)
    prepare.add_argument(
        "--processes",
        type=_whole(1, 4096),
        metavar="N",
        help="number of processes (default: one per core)",
    )
    command("data info", "describe a prepared corpus", common, file, home, of=of)
    sample = command("data sample", "show the first training batch", common, file, home, of=of)
    sample.add_argument(
        "--sequences", type=_whole(1, 1000), default=4, metavar="N",
        help="number of sequences (default: %(default)s)",
    )  # fmt: skip
    sample.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N",
        help="seed of the data order (default: %(default)s)",
    )  # fmt: skip


def _add_tokenizer(of: Any, command: Any, common: Any) -> None:
    train = command("tokenizer train", "train a byte-level BPE on text files", common, of=of)
    train.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="texts, tables, folders or glob patterns, as in data.files",
    )
    train.add_argument(
        "-o", "--output", default="tokenizer", metavar="DIR",
        help="folder of the files (default: ./%(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--vocab-size", type=_whole(257, 1_000_000), default=2048, metavar="N",
        help="size of the vocabulary (default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--pattern", choices=PATTERNS, default="gpt2",
        help="pre-tokenizer that splits the text (default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--special", action="append", metavar="TEXT",
        help=f"special token; may be repeated (default: {_END_OF_TEXT})",
    )  # fmt: skip
    train.add_argument(
        "--format", choices=TOKENIZER_FORMATS, default="huggingface",
        help="format of the files (default: %(default)s, tokenizer.json)",
    )  # fmt: skip
    train.add_argument(
        "--separator", metavar="TEXT", help=f"text between documents (default: {_END_OF_TEXT})"
    )
    train.add_argument(
        "--processes",
        type=_whole(1, 4096),
        metavar="N",
        help="number of processes (default: one per core)",
    )
    tokenizer = argparse.ArgumentParser(add_help=False)
    tokenizer.add_argument(
        "tokenizer", metavar="TOKENIZER",
        help="tokenizer.json, a .tiktoken file, or a folder with tokenizer.json or with vocab.json "
        "and merges.txt",
    )  # fmt: skip
    tokenizer.add_argument(
        "--special", action="append", metavar="TEXT",
        help="special token that the file does not name; may be repeated",
    )  # fmt: skip
    tokenizer.add_argument(
        "--pattern", choices=PATTERNS, default="gpt2",
        help="pre-tokenizer, if the file does not name it (default: %(default)s)",
    )  # fmt: skip
    for name, text, content in (
        ("encode", "turn text into token ids", "text"),
        ("decode", "turn token ids into text", "ids, separated by white space or commas, or .npy"),
        ("show", "describe a tokenizer and colour the tokens of a text", "text"),
    ):
        action = command(f"tokenizer {name}", text, common, tokenizer, of=of)
        action.add_argument(
            "file", nargs="?", default="-", metavar="FILE",
            help=f"{content} (default: standard input)",
        )  # fmt: skip
        if name == "encode":
            action.add_argument(
                "-o", "--output", metavar="FILE.npy", help="save the ids as a NumPy array"
            )
        if name == "show":
            action.add_argument("--text", metavar="TEXT", help="text, instead of a file")


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `low` to `high`."""

    def parse_whole(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            message = f"must be a whole number from {low} to {high}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse_whole


def _real(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`."""

    def parse_real(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            message = f"must be a number from {low:g} to {high:g}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return parse_real


def _setting(text: str) -> Override:
    try:
        return Override.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _duration(text: str) -> float:
    """Return the seconds of `90`, `90s`, `10m` or `2h`."""
    try:
        seconds = float(cast(str, in_seconds(text)))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 10m or 2h, got {text}")
    return seconds


def _override(
    part: str, name: str, parse_value: Callable[[str], float], option: str | None = None
) -> Callable[[str], Override]:
    """Return an argparse type: an override of `part.name` by an option of its own."""

    def parse_override(text: str) -> Override:
        return Override(option or f"--{name}", (part, name), str(parse_value(text)))

    return parse_override


def _name(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_." for c in text) or not text[0].isalnum():
        raise argparse.ArgumentTypeError("use letters, digits, '-', '_' and '.', got " + repr(text))
    return text
