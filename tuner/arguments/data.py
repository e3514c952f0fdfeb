"""Options of `tuner data` and `tuner tokenizer`.

As in `parser`, choices are repeated here, and tests compare them with the registries.
"""

from __future__ import annotations

import argparse
from typing import Any

from tuner.arguments.option_types import override, whole

PATTERNS = ("gpt2", "gpt4", "whitespace")
TOKENIZER_FORMATS = ("huggingface", "gpt2", "tiktoken")
_END_OF_TEXT = "<|endoftext|>"
_ROW = whole(1, 2**31)


def add_data(of: Any, command: Any, common: Any, file: Any, home: Any) -> None:
    """Add the commands of `tuner data`."""
    text = "read, split and encode the data of a space before a search"
    prepare = command("data prepare", text, common, file, home, of=of)
    _add_processes(prepare)
    prepare.add_argument(
        "--max-row-characters", dest="overrides", action="append", default=[], metavar="N",
        type=override("data", "max_row_characters", _ROW, "--max-row-characters"),
        help="override data.max_row_characters, the longest row that is read",
    )  # fmt: skip
    command("data info", "describe a prepared corpus", common, file, home, of=of)
    sample = command("data sample", "show the first training batch", common, file, home, of=of)
    sample.add_argument(
        "--sequences", type=whole(1, 1000), default=4, metavar="N",
        help="number of sequences (default: %(default)s)",
    )  # fmt: skip
    sample.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=0, metavar="N",
        help="seed of the data order (default: %(default)s)",
    )  # fmt: skip


def add_tokenizer(of: Any, command: Any, common: Any) -> None:
    """Add the commands of `tuner tokenizer`."""
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
        "--vocab-size", type=whole(257, 1_000_000), default=2048, metavar="N",
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
    _add_processes(train)
    train.add_argument(
        "--max-row-characters", type=_ROW, metavar="N", help="longest row that is read"
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


def _add_processes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--processes",
        type=whole(1, 4096),
        metavar="N",
        help="number of processes (default: one per core)",
    )
