"""`tuner data prepare`, `info` and `sample`: the data of a search space."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from model.corpus.corpus import Corpus
from model.corpus.dataset import Ints, sequences
from model.corpus.prepare import cached, prepare
from model.progress import OnProgress
from model.spec.data import END_OF_TEXT, SplitName
from tuner.commands.output import consoles, home_of, print_json, say, space_of
from tuner.commands.tokenizer import coloured
from tuner.errors import TunerError
from tuner.formatting import short_hash
from tuner.home import Home
from tuner.space.conflicts import check_contexts
from tuner.space.data_facts import DataFacts
from tuner.space.remarks import data_notes
from tuner.space.space import SearchSpace
from tuner.terminal.progress import show_progress
from tuner.terminal.tables import table
from tuner.trained.warm_start import warm_started

_SPLITS: tuple[SplitName, SplitName] = ("train", "validation")
_LARGEST_FILES = 5
_MOST_SHOWN_TOKENS = 400  # of a source or a target


def run_prepare(options: argparse.Namespace) -> int:
    """Prepare the data of a space."""
    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with show_progress(progress) as on_progress:
        corpus = prepare_corpus(space, home, options.processes, on_progress)
    print_json(options, print_corpus(results, space, corpus))
    return 0


def run_info(options: argparse.Namespace) -> int:
    """Describe a prepared corpus."""
    space = space_of(options)
    results, _ = consoles(options)
    corpus = cached_corpus(space, options.space, Home.of(options.home).readable(say))
    print_json(options, print_corpus(results, space, corpus))
    return 0


def run_sample(options: argparse.Namespace) -> int:
    """Show the first training batch."""
    space, home = space_of(options), home_of(options)
    results, progress = consoles(options)
    with show_progress(progress) as on_progress:
        corpus = prepare_corpus(space, home, None, on_progress)
    print_json(options, print_sample(results, space, corpus, options.sequences, options.seed))
    return 0


# the corpus of a space ---------------------------------------------------------------------------


def prepare_corpus(
    space: SearchSpace, home: Home, processes: int | None, on_progress: OnProgress
) -> Corpus:
    """Return the corpus of a space; prepare it if it is not cached.

    Raises:
        CorpusError: if the data cannot be used.
        TunerError: if the warm start of the space, which gives the tokenizer, cannot be used.
    """
    space, _ = warm_started(space, home)
    return prepare(
        space.data, space.tokenizer, home.corpora, processes=processes, on_progress=on_progress
    )


def cached_corpus(space: SearchSpace, file: str, home: Home) -> Corpus:
    """Return the corpus of a space, which must have been prepared.

    Raises:
        CorpusError: if the data cannot be read.
        TunerError: if the data has not been prepared, or the warm start cannot be used.
    """
    space, _ = warm_started(space, home)
    corpus = cached(space.data, space.tokenizer, home.corpora)
    if corpus is None:
        raise TunerError(
            f"the data of {file} has not been prepared in {home.corpora}; run 'tuner data prepare "
            f"--space {file}'"
        )
    return corpus


# tuner data info ---------------------------------------------------------------------------------


def print_corpus(console: Console, space: SearchSpace, corpus: Corpus) -> dict[str, Any]:
    """Print the sizes of a prepared corpus; return the object of --json."""
    facts: dict[str, Any] = {
        "source": space.data.kind,
        "files": len(corpus.files),
        "split_by": corpus.split_by,
        "validation_share": corpus.validation_share,
        "vocab_size": corpus.tokenizer.vocab_size,
        "pattern": corpus.tokenizer.pattern,
        "data_fingerprint": corpus.data_fingerprint,
        "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
    }
    title = (
        f"{space.data.kind}, {len(corpus.files):,} {'file' if len(corpus.files) == 1 else 'files'}"
    )
    if corpus.has_pairs:
        facts |= _print_pair_sizes(console, title, corpus)
    else:
        facts |= _print_document_sizes(console, title, corpus)
    for note in data_notes(corpus):
        console.print(note, highlight=False, soft_wrap=True)
    if not corpus.has_pairs:
        facts["sequences"] = _print_sequences(console, space, corpus)
    largest = sorted(corpus.files, key=lambda file: -file.bytes)[:_LARGEST_FILES]
    console.print(
        "largest files: " + ", ".join(f"{file.name} ({file.bytes:,} bytes)" for file in largest),
        highlight=False,
    )
    console.print(
        f"vocabulary {corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.pattern}), ids as "
        f"{corpus.train.dtype}; fingerprints: data {short_hash(corpus.data_fingerprint)}, "
        f"tokenizer {short_hash(corpus.tokenizer_fingerprint)}",
        highlight=False,
    )
    return facts


def _print_document_sizes(console: Console, title: str, corpus: Corpus) -> dict[str, Any]:
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
    return facts


def _print_sequences(console: Console, space: SearchSpace, corpus: Corpus) -> dict[str, int]:
    """Print how many training sequences each context length of a space gives, and return them."""
    facts = DataFacts.of(corpus)
    check_contexts(space, facts)
    lengths = sorted({a.context_length for a in space.shapes(corpus.tokenizer.vocab_size)})
    counts = {str(length): facts.sequences(length)[0] for length in lengths}
    for length, count in counts.items():
        console.print(f"{count:,} training sequences of {length} tokens", highlight=False)
    return counts


def _print_pair_sizes(console: Console, title: str, corpus: Corpus) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    rows, length_rows = [], []
    for split in _SPLITS:
        pairs = corpus.pairs(split)
        sizes, cells = _sizes(corpus, split)
        facts[split] = {"pairs": len(pairs), **sizes}
        rows.append([split, f"{len(pairs):,}", *cells])
        for side, lengths in zip(("source", "target"), pairs.lengths(), strict=True):
            summary = _summary(lengths)
            facts[split][f"{side}_tokens"] = summary
            cells = [f"{value:,.0f}" for value in summary.values()]
            length_rows.append([f"{split} {side}s", *cells])
    console.print(table(title, ["split", "pairs", "bytes", "tokens", "bytes/token"], rows))
    console.print(table(None, ["tokens of", "median", "90 % have at most", "longest"], length_rows))
    console.print(
        f"{facts['train']['pairs']:,} training pairs; a length counts the {END_OF_TEXT} at its end",
        highlight=False,
    )
    return facts


def _sizes(corpus: Corpus, split: SplitName) -> tuple[dict[str, Any], list[str]]:
    """Return the size of a split: as facts and as cells of a table."""
    part = corpus.split(split)
    tokens, num_bytes = len(part.tokens), part.num_bytes
    facts = {"bytes": num_bytes, "tokens": tokens, "bytes_per_token": num_bytes / tokens}
    return facts, [f"{num_bytes:,}", f"{tokens:,}", f"{num_bytes / tokens:.2f}"]


def _summary(lengths: Ints) -> dict[str, float]:
    """Summarize lengths in tokens, the token at the end of each text included."""
    return {
        "median": float(np.median(lengths)),
        "p90": int(np.percentile(lengths, 90, method="inverted_cdf")),
        "longest": int(lengths.max()),
    }


# tuner data sample -------------------------------------------------------------------------------


def print_sample(
    console: Console, space: SearchSpace, corpus: Corpus, count: int, seed: int
) -> dict[str, Any]:
    """Print the first training sequences, or pairs, that a trial of a seed reads.

    Returns:
        The object of --json.
    """
    if corpus.has_pairs:
        return _print_pairs(console, corpus, count, seed)
    check_contexts(space, DataFacts.of(corpus))
    length = max(a.context_length for a in space.shapes(corpus.tokenizer.vocab_size))
    size, _ = DataFacts.of(corpus).sequences(length)
    numbers = _first_numbers(seed, count, size)
    x, _ = sequences(corpus.train, numbers, length)  # (count, T)
    console.print(
        f"the first {len(x)} of {size:,} training sequences of seed {seed}, {length} tokens each; "
        f"the targets are the same tokens shifted by one",
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


def _first_numbers(seed: int, count: int, size: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the first sequences in the order of a seed, (count,)."""
    from model.corpus.order import data_order  # loads torch

    return data_order(seed, np.arange(min(count, size)), size)


def _print_pairs(console: Console, corpus: Corpus, count: int, seed: int) -> dict[str, Any]:
    pairs, tokenizer = corpus.pairs("train"), corpus.tokenizer
    size = len(pairs)
    numbers = _first_numbers(seed, count, size).tolist()
    console.print(
        f"the first {len(numbers)} of {size:,} training pairs of seed {seed}: each a source "
        f"and its target",
        highlight=False,
    )
    pairs_shown = []
    for number in numbers:
        source, target = pairs.source(number).tolist(), pairs.target(number).tolist()
        console.rule(f"pair {number}", style="dim", align="left")
        console.print(_beginning(corpus, source))
        console.print(Text("→ ", "bold") + _beginning(corpus, target))
        pairs_shown.append({
            "number": number,
            "source": tokenizer.decode(source),
            "target": tokenizer.decode(target),
            "source_ids": source,
            "target_ids": target,
        })  # fmt: skip
    return {"pairs": pairs_shown}


def _beginning(corpus: Corpus, ids: list[int]) -> Text:
    """Return tokens in colours, cut so that they do not fill the screen."""
    text = coloured(corpus.tokenizer, ids[:_MOST_SHOWN_TOKENS])
    hidden = len(ids) - _MOST_SHOWN_TOKENS
    return text.append(f" … {hidden:,} more tokens", "dim") if hidden > 0 else text
