"""Commands about tokenizers."""

from __future__ import annotations

import argparse
import sys

from tuner.commands.output import consoles, print_json


def train(options: argparse.Namespace) -> int:
    """Train a tokenizer on text files."""
    from tuner.progress import shown
    from tuner.tokenizers import describe, train

    results, progress = consoles(options)
    with shown(progress) as on_progress:
        tokenizer, files = train(
            options.files,
            options.output,
            vocab_size=options.vocab_size,
            pattern=options.pattern,
            special_tokens=options.special,
            separator=options.separator,
            file_format=options.format,
            processes=options.processes,
            on_progress=on_progress,
        )
    facts = describe(results, tokenizer)
    for path in files:
        results.print(f"wrote {path}", highlight=False, soft_wrap=True)
    print_json(options, {**facts, "files": [str(path) for path in files]})
    return 0


def encode(options: argparse.Namespace) -> int:
    """Turn text into token ids."""
    from tuner.tokenizers import encode, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    stream = sys.stderr if options.json else sys.stdout
    print_json(options, encode(tokenizer, options.file, options.output, stream))
    return 0


def decode(options: argparse.Namespace) -> int:
    """Turn token ids into text."""
    from tuner.tokenizers import decode, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    text = decode(tokenizer, options.file)
    if not options.json:
        sys.stdout.write(text)
    print_json(options, {"text": text})
    return 0


def show(options: argparse.Namespace) -> int:
    """Describe a tokenizer and colour the tokens of a text."""
    from tuner.tokenizers import describe, print_tokens, read_text, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    results, _ = consoles(options)
    facts = describe(results, tokenizer)
    text = options.text
    if text is None and not (options.file == "-" and sys.stdin.isatty()):
        text = read_text(options.file)
    if text:
        facts |= print_tokens(results, tokenizer, text)
    print_json(options, facts)
    return 0
