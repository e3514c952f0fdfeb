"""`tuner tokenizer train`, `encode`, `decode` and `show`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from model.corpus.token_files import (
    TokenizerSummary,
    decode_file,
    encode_file,
    read_text,
    read_tokenizer,
    train_on_files,
)
from model.spec.data import END_OF_TEXT, DataConfig
from model.tokenizer.tokenizer import Tokenizer
from tuner.commands.output import as_json, consoles, print_data, print_json
from tuner.terminal.console import PlainConsole
from tuner.terminal.progress import show_progress
from tuner.terminal.tokens import coloured
from tuner.texts.formatting import short_hash

_MOST_SHOWN_TOKENS = 2_000
_LONGEST_TOKENS = 8


def run_train(options: argparse.Namespace) -> int:
    """Train a tokenizer on text files."""
    results, progress = consoles(options)
    separator: dict[str, Any] = {"separator": options.separator} if options.separator else {}
    data = DataConfig(
        files=tuple(options.files), max_row_characters=options.max_row_characters, **separator
    )
    with show_progress(progress) as on_progress:
        tokenizer, files = train_on_files(
            data,
            options.output,
            vocab_size=options.vocab_size,
            pattern=options.pattern,
            special_tokens=[END_OF_TEXT] if options.special is None else options.special,
            file_format=options.format,
            processes=options.processes,
            on_progress=on_progress,
        )
    summary = _print_tokenizer(results, tokenizer)
    for path in files:
        results.write_line(f"wrote {path}")
    print_json(options, {**as_json(summary), "files": files})
    return 0


def run_encode(options: argparse.Namespace) -> int:
    """Turn text into token ids."""
    stream = sys.stderr if options.json else sys.stdout
    print_json(options, encode_file(_tokenizer(options), options.file, options.output, stream))
    return 0


def run_decode(options: argparse.Namespace) -> int:
    """Turn token ids into text."""
    text = decode_file(_tokenizer(options), options.file)
    if not options.json:
        print_data(text)
    print_json(options, {"text": text})
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Describe a tokenizer and colour the tokens of a text."""
    tokenizer = _tokenizer(options)
    results, _ = consoles(options)
    facts = as_json(_print_tokenizer(results, tokenizer))
    text = options.text
    if text is None and not (options.file == "-" and sys.stdin.isatty()):
        text = read_text(options.file)
    if text:
        facts |= _print_tokens(results, tokenizer, text)
    print_json(options, facts)
    return 0


def _tokenizer(options: argparse.Namespace) -> Tokenizer:
    return read_tokenizer(options.tokenizer, options.special, options.pattern)


def _print_tokenizer(console: PlainConsole, tokenizer: Tokenizer) -> TokenizerSummary:
    """Print a description of a tokenizer, and return it."""
    summary = TokenizerSummary.of(tokenizer)
    longest = sorted(tokenizer.vocab.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [
        ("vocabulary", f"{summary.vocab_size:,} ids, {summary.merges:,} merges"),
        ("pattern", summary.pattern),
        ("special tokens", " ".join(summary.special_tokens) or "none"),
        ("longest tokens", " ".join(_quoted(t) for _, t in longest[:_LONGEST_TOKENS])),
        ("fingerprint", short_hash(summary.fingerprint)),
    ]
    console.table(None, ["tokenizer", ""], rows)
    return summary


def _quoted(token: bytes) -> str:
    """Return a token as a quoted text, or as escaped bytes if it is not valid UTF-8."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)[1:]


def _print_tokens(console: PlainConsole, tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Print a text with its tokens in colours, and its bytes per token; return their numbers."""
    ids = tokenizer.encode(text)
    num_bytes = len(text.encode("utf-8", "surrogatepass"))
    console.print()
    console.print(coloured(tokenizer, ids[:_MOST_SHOWN_TOKENS]), soft_wrap=False)
    num_hidden = len(ids) - _MOST_SHOWN_TOKENS
    hidden = f" (the last {num_hidden:,} are not shown)" if num_hidden > 0 else ""
    console.print(
        f"\n{num_bytes:,} bytes, {len(text):,} characters, {len(ids):,} tokens{hidden}: "
        f"{num_bytes / max(1, len(ids)):.2f} bytes per token"
    )
    return {"bytes": num_bytes, "characters": len(text), "tokens": len(ids), "ids": ids}
