"""`tuner tokenizer train`, `encode`, `decode` and `show`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.style import Style
from rich.text import Text

from model.corpus.prepare import train_tokenizer
from model.progress import OnProgress
from model.sources.streams import texts
from model.spec.data import END_OF_TEXT, DataConfig
from model.tokenizer.tokenizer import Tokenizer
from tuner.commands.output import consoles, print_data, print_json
from tuner.control_characters import visible
from tuner.errors import TunerError
from tuner.formatting import short_hash
from tuner.terminal.progress import show_progress
from tuner.terminal.tables import table

_IDS_PER_LINE = 32
_MOST_SHOWN_TOKENS = 2_000
_LONGEST_TOKENS = 8
_BACKGROUNDS = ("color(24)", "color(94)", "color(22)", "color(89)", "color(60)")  # in turn


def run_train(options: argparse.Namespace) -> int:
    """Train a tokenizer on text files."""
    results, progress = consoles(options)
    with show_progress(progress) as on_progress:
        tokenizer, files = train_on_files(
            options.files,
            options.output,
            vocab_size=options.vocab_size,
            pattern=options.pattern,
            special_tokens=options.special,
            separator=options.separator,
            file_format=options.format,
            processes=options.processes,
            max_row_characters=options.max_row_characters,
            on_progress=on_progress,
        )
    facts = print_tokenizer(results, tokenizer)
    for path in files:
        results.print(f"wrote {path}", highlight=False, soft_wrap=True)
    print_json(options, {**facts, "files": [str(path) for path in files]})
    return 0


def run_encode(options: argparse.Namespace) -> int:
    """Turn text into token ids."""
    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    stream = sys.stderr if options.json else sys.stdout
    print_json(options, encode_file(tokenizer, options.file, options.output, stream))
    return 0


def run_decode(options: argparse.Namespace) -> int:
    """Turn token ids into text."""
    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    text = decode_file(tokenizer, options.file)
    if not options.json:
        print_data(text)
    print_json(options, {"text": text})
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Describe a tokenizer and colour the tokens of a text."""
    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    results, _ = consoles(options)
    facts = print_tokenizer(results, tokenizer)
    text = options.text
    if text is None and not (options.file == "-" and sys.stdin.isatty()):
        text = read_text(options.file)
    if text:
        facts |= print_tokens(results, tokenizer, text)
    print_json(options, facts)
    return 0


# files -------------------------------------------------------------------------------------------


def train_on_files(
    files: Sequence[str],
    output: str | Path,
    *,
    vocab_size: int,
    pattern: str,
    special_tokens: Sequence[str] | None,
    separator: str | None,
    file_format: str,
    processes: int | None,
    max_row_characters: int | None = None,
    on_progress: OnProgress,
) -> tuple[Tokenizer, list[Path]]:
    """Train a tokenizer on all documents of the files and write it.

    Returns:
        The tokenizer and its files.

    Raises:
        CorpusError: if a file cannot be read.
        TunerError: if the vocabulary is too small, or the tokenizer cannot be written.
    """
    options: dict[str, Any] = {"separator": separator} if separator else {}
    data = DataConfig(files=tuple(files), max_row_characters=max_row_characters, **options)
    special = [END_OF_TEXT] if special_tokens is None else special_tokens
    try:
        tokenizer = train_tokenizer(
            data, vocab_size, special, pattern, processes=processes, on_progress=on_progress
        )
        return tokenizer, tokenizer.save(output, file_format)
    except ValueError as error:
        raise TunerError(str(error)) from error
    except OSError as error:
        raise TunerError(f"cannot write to {output}: {error.strerror}") from error


def read_tokenizer(path: str, special_tokens: Sequence[str] | None, pattern: str) -> Tokenizer:
    """Read a tokenizer of any format.

    Raises:
        TunerError: if the file cannot be read, or is of an unsupported kind.
    """
    try:
        return Tokenizer.from_file(path, special_tokens, pattern)
    except OSError as error:
        raise TunerError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise TunerError(f"{path}: {error}".replace(f"{path}: {path}", path)) from error


def read_text(file: str) -> str:
    """Read a complete text; `-` is standard input.

    Raises:
        CorpusError: if the file cannot be read.
    """
    return "".join(_blocks(file))


def _blocks(file: str) -> Iterator[str]:
    return texts(Path("/dev/stdin" if file == "-" else file), errors="strict")


def encode_file(
    tokenizer: Tokenizer, file: str, output: str | None, stream: TextIO
) -> dict[str, Any]:
    """Encode a text block by block and write the ids to a stream, or to a .npy file.

    Args:
        tokenizer: encoder.
        file: path of the text; `-` is standard input.
        output: path of the .npy file; None to write to `stream`.
        stream: output of the ids as decimal numbers.

    Returns:
        The object of --json.

    Raises:
        CorpusError: if the text cannot be read.
        TunerError: if the ids cannot be written.
    """
    num_bytes = 0

    def blocks() -> Iterator[str]:
        nonlocal num_bytes
        for block in _blocks(file):
            num_bytes += len(block.encode("utf-8", "surrogatepass"))
            yield block

    ids = tokenizer.encode_iterable(blocks())
    count = 0
    if output is not None:
        array = np.fromiter(ids, tokenizer.dtype)
        count = len(array)
        try:
            with Path(output).open("wb") as npy_file:
                np.save(npy_file, array)
        except OSError as error:
            raise TunerError(f"cannot write {output}: {error.strerror}") from error
    else:
        for count, i in enumerate(ids, 1):
            stream.write(f"{i}\n" if count % _IDS_PER_LINE == 0 else f"{i} ")
        if count % _IDS_PER_LINE:
            stream.write("\n")
    return {"tokens": count, "bytes": num_bytes, "output": output}


def decode_file(tokenizer: Tokenizer, file: str) -> str:
    """Decode ids, read as decimal numbers or from a .npy file.

    Raises:
        CorpusError: if the file cannot be read.
        TunerError: if the file does not hold ids, or an id is not in the vocabulary.
    """
    try:
        if file.endswith(".npy"):
            ids = np.load(file).tolist()
        else:
            ids = [int(word) for word in read_text(file).replace(",", " ").split()]
        return tokenizer.decode(ids)
    except OSError as error:
        raise TunerError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise TunerError(f"{file} does not hold token ids: {error}") from error
    except KeyError as error:
        raise TunerError(f"there is no token {error} in the vocabulary") from error


# tuner tokenizer show ----------------------------------------------------------------------------


def print_tokenizer(console: Console, tokenizer: Tokenizer) -> dict[str, Any]:
    """Print a description of a tokenizer; return the object of --json."""
    longest = sorted(tokenizer.vocab.items(), key=lambda item: (-len(item[1]), item[0]))
    facts = {
        "vocab_size": tokenizer.vocab_size,
        "merges": len(tokenizer.merges),
        "pattern": tokenizer.pattern,
        "special_tokens": list(tokenizer.special_tokens),
        "fingerprint": tokenizer.fingerprint,
    }
    rows = [
        ("vocabulary", f"{tokenizer.vocab_size:,} ids, {len(tokenizer.merges):,} merges"),
        ("pattern", tokenizer.pattern),
        ("special tokens", " ".join(tokenizer.special_tokens) or "none"),
        ("longest tokens", " ".join(_quoted(t) for _, t in longest[:_LONGEST_TOKENS])),
        ("fingerprint", short_hash(tokenizer.fingerprint)),
    ]
    console.print(table(None, ["tokenizer", ""], rows))
    return facts


def _quoted(token: bytes) -> str:
    """Return a token as a quoted text, or as escaped bytes if it is not valid UTF-8."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)[1:]


def print_tokens(console: Console, tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Print a text with its tokens in colours, and its bytes per token; return their numbers."""
    ids = tokenizer.encode(text)
    num_bytes = len(text.encode("utf-8", "surrogatepass"))
    console.print()
    console.print(coloured(tokenizer, ids[:_MOST_SHOWN_TOKENS]), soft_wrap=False)
    num_hidden = len(ids) - _MOST_SHOWN_TOKENS
    hidden = f" (the last {num_hidden:,} are not shown)" if num_hidden > 0 else ""
    console.print(
        f"\n{num_bytes:,} bytes, {len(text):,} characters, {len(ids):,} tokens{hidden}: "
        f"{num_bytes / max(1, len(ids)):.2f} bytes per token",
        highlight=False,
    )
    return {"bytes": num_bytes, "characters": len(text), "tokens": len(ids), "ids": ids}


def coloured(tokenizer: Tokenizer, ids: Sequence[int]) -> Text:
    """Return tokens side by side, neighbours in different colours, special tokens inverted.

    White space is made visible: `·` for a space, `⏎` for a line break, `→` for a tab. Bytes that
    are not a complete character are shown as `<e6>`.
    """
    special = {token.encode() for token in tokenizer.special_tokens}
    text = Text()
    for number, token in enumerate(map(tokenizer.vocab.__getitem__, ids)):
        if token in special:
            text.append(visible(token.decode()), Style(reverse=True, bold=True))
        else:
            background = _BACKGROUNDS[number % len(_BACKGROUNDS)]
            text.append(_visible(token), Style(color="white", bgcolor=background))
    return text


def _visible(token: bytes) -> str:
    text = "".join(
        f"<{ord(character) - 0xDC00:02x}>" if "\udc80" <= character <= "\udcff" else character
        for character in token.decode("utf-8", "surrogateescape")
    )
    text = text.translate({ord(" "): "·", ord("\t"): "→", ord("\r"): "␍", ord("\n"): "⏎\n"})
    return visible(text)
