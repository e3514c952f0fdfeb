"""`tuner data`: prepare the data of a search space, and see what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from model.corpus import Corpus, sequences
from model.preparation import cached, prepare
from model.progress import OnProgress
from tuner.errors import TunerError
from tuner.home import Home
from tuner.init_from import warm_started
from tuner.space import CorpusFacts, SearchSpace
from tuner.summary import table
from tuner.tokenizers import coloured

_SPLITS = ("train", "validation")
_LARGEST_FILES = 5


def prepare_corpus(
    space: SearchSpace, home: Home, processes: int | None, on_progress: OnProgress
) -> Corpus:
    """The data of a space, prepared or loaded.

    Raises:
        CorpusError: if the data cannot be used.
        TunerError: if what the space starts from, whose tokenizer is taken, cannot be.
    """
    space, _ = warm_started(space, home)
    return prepare(
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
    rows = []
    for split in _SPLITS:
        tokens, num_bytes = getattr(corpus, split), getattr(corpus, f"{split}_bytes")
        ends = getattr(corpus, f"{split}_documents")
        lengths = np.diff(ends, prepend=0)
        facts[split] = {
            "documents": len(ends),
            "bytes": num_bytes,
            "tokens": len(tokens),
            "bytes_per_token": num_bytes / len(tokens),
            "median_document_tokens": float(np.median(lengths)),
            "longest_document_tokens": int(lengths.max()),
        }
        rows.append([
            split, f"{len(ends):,}", f"{num_bytes:,}", f"{len(tokens):,}",
            f"{num_bytes / len(tokens):.2f}", f"{np.median(lengths):,.0f}", f"{lengths.max():,}",
        ])  # fmt: skip
    console.print(
        table(
            f"{space.data.kind}, {len(corpus.files):,} "
            f"{'file' if len(corpus.files) == 1 else 'files'}",
            ["split", "documents", "bytes", "tokens", "bytes/token", "median tokens", "longest"],
            rows,
        )
    )
    lengths_of_space = {a.context_length for a in space.shapes(corpus.tokenizer.vocab_size)}
    facts["sequences"] = {
        str(length): CorpusFacts.of(corpus).sequences(length)[0]
        for length in sorted(lengths_of_space)
    }
    for length, count in facts["sequences"].items():
        console.print(f"{count:,} training sequences of {length} tokens", highlight=False)
    largest = sorted(corpus.files, key=lambda file: -file.bytes)[:_LARGEST_FILES]
    console.print(
        "largest files: " + ", ".join(f"{file.name} ({file.bytes:,} bytes)" for file in largest),
        highlight=False,
        markup=False,
    )
    console.print(
        f"vocabulary {corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.pattern}), ids as "
        f"{corpus.train.dtype}; fingerprints: data {corpus.data_fingerprint[:12]}, tokenizer "
        f"{corpus.tokenizer_fingerprint[:12]}",
        highlight=False,
    )
    return facts


def print_sample(
    console: Console, space: SearchSpace, corpus: Corpus, count: int, seed: int
) -> dict[str, Any]:
    """The first training sequences of a trial of some seed, decoded."""
    from model.engine import data_order

    length = max(a.context_length for a in space.shapes(corpus.tokenizer.vocab_size))
    size, _ = CorpusFacts.of(corpus).sequences(length)
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
