"""Commands about the data of a space."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from model.corpus.corpus import Corpus
from model.corpus.dataset import Ints, sequences
from model.corpus.prepare import cached
from model.corpus.prepare import prepare as prepare_files
from model.progress import OnProgress
from model.spec.data import END_OF_TEXT, SplitName
from tuner.commands.output import consoles, home_of, print_json, space_of
from tuner.commands.tokenizer import coloured
from tuner.errors import TunerError
from tuner.formatting import short_hash
from tuner.home import Home
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.terminal.tables import table
from tuner.trained.warm_start import warm_started


def prepare(options: argparse.Namespace) -> int:
    """Prepare the data of a space."""
    from tuner.terminal.progress import shown

    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, options.processes, on_progress)
    print_json(options, describe(results, space, corpus))
    return 0


def info(options: argparse.Namespace) -> int:
    """What a prepared corpus holds."""
    from tuner.home import Home

    space = space_of(options)
    results, _ = consoles(options)
    corpus = cached_corpus(space, options.space, Home.of(options.home))
    print_json(options, describe(results, space, corpus))
    return 0


def sample(options: argparse.Namespace) -> int:
    """Show the first training batch."""
    from tuner.terminal.progress import shown

    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, None, on_progress)
    print_json(options, print_sample(results, space, corpus, options.sequences, options.seed))
    return 0


_SPLITS: tuple[SplitName, SplitName] = ("train", "validation")


_LARGEST_FILES = 5


_MOST_SHOWN_TOKENS = 400  # of a source or a target


def prepare_corpus(
    space: SearchSpace, home: Home, processes: int | None, on_progress: OnProgress
) -> Corpus:
    """The data of a space, prepared or loaded.

    Raises:
        CorpusError: if the data cannot be used.
        TunerError: if what the space starts from, whose tokenizer is taken, cannot be.
    """
    space, _ = warm_started(space, home)
    return prepare_files(
        space.data, space.tokenizer, home.corpora, processes=processes, on_progress=on_progress
    )


def cached_corpus(space: SearchSpace, file: str, home: Home) -> Corpus:
    """The data of a space, if it has been prepared.

    Raises:
        CorpusError: if the data cannot be read.
        TunerError: if it has not been prepared, or as `prepare_corpus`.
    """
    space, _ = warm_started(space, home)
    corpus = cached(space.data, space.tokenizer, home.corpora)
    if corpus is None:
        raise TunerError(
            f"the data of {file} has not been prepared in {home.corpora}; run 'tuner data prepare "
            f"--space {file}'"
        )
    return corpus


def describe(console: Console, space: SearchSpace, corpus: Corpus) -> dict[str, Any]:
    """What a prepared corpus holds."""
    facts: dict[str, Any] = {
        "source": space.data.kind,
        "files": len(corpus.files),
        "vocab_size": corpus.tokenizer.vocab_size,
        "pattern": corpus.tokenizer.pattern,
        "data_fingerprint": corpus.data_fingerprint,
        "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
    }
    title = (
        f"{space.data.kind}, {len(corpus.files):,} {'file' if len(corpus.files) == 1 else 'files'}"
    )
    if corpus.has_pairs:
        facts |= _describe_pairs(console, title, corpus)
    else:
        facts |= _describe_documents(console, title, space, corpus)
    largest = sorted(corpus.files, key=lambda file: -file.bytes)[:_LARGEST_FILES]
    console.print(
        "largest files: " + ", ".join(f"{file.name} ({file.bytes:,} bytes)" for file in largest),
        highlight=False,
        markup=False,
    )
    console.print(
        f"vocabulary {corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.pattern}), ids as "
        f"{corpus.train.dtype}; fingerprints: data {short_hash(corpus.data_fingerprint)}, "
        f"tokenizer {short_hash(corpus.tokenizer_fingerprint)}",
        highlight=False,
    )
    return facts


def _describe_documents(
    console: Console, title: str, space: SearchSpace, corpus: Corpus
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    rows = []
    for split in _SPLITS:
        lengths = np.diff(corpus.split(split).document_ends, prepend=0)
        sizes, cells = _sizes(corpus, split)
        facts[split] = {
            "documents": len(lengths),
            **sizes,
            "median_document_tokens": float(np.median(lengths)),
            "longest_document_tokens": int(lengths.max()),
        }
        rows.append([
            split, f"{len(lengths):,}", *cells, f"{np.median(lengths):,.0f}", f"{lengths.max():,}",
        ])  # fmt: skip
    columns = ["split", "documents", "bytes", "tokens", "bytes/token", "median tokens", "longest"]
    console.print(table(title, columns, rows))
    lengths_of_space = {a.context_length for a in space.shapes(corpus.tokenizer.vocab_size)}
    facts["sequences"] = {
        str(length): DataFacts.of(corpus).sequences(length)[0]
        for length in sorted(lengths_of_space)
    }
    for length, count in facts["sequences"].items():
        console.print(f"{count:,} training sequences of {length} tokens", highlight=False)
    return facts


def _describe_pairs(console: Console, title: str, corpus: Corpus) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    rows, length_rows = [], []
    for split in _SPLITS:
        pairs = corpus.pairs(split)
        sizes, cells = _sizes(corpus, split)
        facts[split] = {"pairs": len(pairs), **sizes}
        rows.append([split, f"{len(pairs):,}", *cells])
        for side, lengths in zip(("source", "target"), pairs.lengths(), strict=True):
            known = _lengths(lengths)
            facts[split][f"{side}_tokens"] = known
            length_rows.append([f"{split} {side}s", *(f"{value:,.0f}" for value in known.values())])
    console.print(table(title, ["split", "pairs", "bytes", "tokens", "bytes/token"], rows))
    console.print(table(None, ["tokens of", "median", "90 % have at most", "longest"], length_rows))
    console.print(
        f"{facts['train']['pairs']:,} training pairs; a length counts the {END_OF_TEXT} at its end",
        highlight=False,
    )
    return facts


def _sizes(corpus: Corpus, split: SplitName) -> tuple[dict[str, Any], list[str]]:
    """How large a split is: as facts and as cells of a table."""
    part = corpus.split(split)
    tokens, num_bytes = len(part.tokens), part.num_bytes
    facts = {"bytes": num_bytes, "tokens": tokens, "bytes_per_token": num_bytes / tokens}
    return facts, [f"{num_bytes:,}", f"{tokens:,}", f"{num_bytes / tokens:.2f}"]


def _lengths(lengths: Ints) -> dict[str, float]:
    """What a length of rows is chosen by; each counts the token that ends the text."""
    return {
        "median": float(np.median(lengths)),
        "p90": int(np.percentile(lengths, 90, method="inverted_cdf")),
        "longest": int(lengths.max()),
    }


def print_sample(
    console: Console, space: SearchSpace, corpus: Corpus, count: int, seed: int
) -> dict[str, Any]:
    """The first training sequences, or pairs, of a trial of some seed, decoded."""
    if corpus.has_pairs:
        return _print_pairs(console, corpus, count, seed)
    from model.corpus.order import data_order

    length = max(a.context_length for a in space.shapes(corpus.tokenizer.vocab_size))
    size, _ = DataFacts.of(corpus).sequences(length)
    numbers = data_order(seed, np.arange(min(count, size)), size)
    x, _ = sequences(corpus.train, numbers, length)  # (count, T)
    console.print(
        f"the first {len(x)} of {size:,} training sequences of seed {seed}, {length} tokens each; "
        f"a sequence is learned together with the token after it",
        highlight=False,
    )
    for number, ids in zip(numbers.tolist(), x.tolist(), strict=True):
        console.rule(f"sequence {number}", style="dim", align="left")
        console.print(coloured(corpus.tokenizer, ids))
    return {
        "context_length": length,
        "sequences": [
            {"number": number, "text": corpus.tokenizer.decode(ids), "ids": ids}
            for number, ids in zip(numbers.tolist(), x.tolist(), strict=True)
        ],
    }


def _print_pairs(console: Console, corpus: Corpus, count: int, seed: int) -> dict[str, Any]:
    from model.corpus.order import data_order

    pairs, tokenizer = corpus.pairs("train"), corpus.tokenizer
    size = len(pairs)
    numbers = data_order(seed, np.arange(min(count, size)), size).tolist()
    console.print(
        f"the first {len(numbers)} of {size:,} training pairs of seed {seed}: a source, and the "
        f"target that follows from it",
        highlight=False,
    )
    shown = []
    for number in numbers:
        source, target = pairs.source(number).tolist(), pairs.target(number).tolist()
        console.rule(f"pair {number}", style="dim", align="left")
        console.print(_beginning(corpus, source))
        console.print(Text("→ ", "bold") + _beginning(corpus, target))
        shown.append({
            "number": number,
            "source": tokenizer.decode(source),
            "target": tokenizer.decode(target),
            "source_ids": source,
            "target_ids": target,
        })  # fmt: skip
    return {"pairs": shown}


def _beginning(corpus: Corpus, ids: list[int]) -> Text:
    """Tokens in colours, cut where they would fill the screen."""
    text = coloured(corpus.tokenizer, ids[:_MOST_SHOWN_TOKENS])
    left_out = len(ids) - _MOST_SHOWN_TOKENS
    return text.append(f" … {left_out:,} more tokens", "dim") if left_out > 0 else text
