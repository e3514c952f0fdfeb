"""`tuner data prepare`, `info` and `sample`: the data of a search space."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from model.corpus.corpus import Corpus
from model.corpus.prepare import cached, prepare
from model.corpus.summary import (
    CorpusSummary,
    SampleExample,
    SamplePair,
    SampleSequence,
    SplitSizes,
    first_examples,
    first_pairs,
    first_sequences,
)
from model.spec.data import END_OF_TEXT
from tuner.commands.output import consoles, home_of, home_option, print_json, say, space_of
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.space.conflicts import check_contexts, context_lengths
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.terminal.console import PlainConsole
from tuner.terminal.progress import show_progress
from tuner.terminal.tokens import coloured
from tuner.texts.formatting import counted, short_hash
from tuner.trained.warm_start import warm_started
from tuner.validation.data_notes import data_notes, example_lines

_LARGEST_FILES = 5
_MOST_SHOWN_TOKENS = 400  # of a source or a target


def run_prepare(options: argparse.Namespace) -> int:
    """Prepare the data of a space."""
    space, corpus = _prepared(options, options.processes)
    return _print_corpus(options, space, corpus)


def run_info(options: argparse.Namespace) -> int:
    """Describe a prepared corpus."""
    space, home = space_of(options), Home.of(options.home).readable(say)
    space, _ = warm_started(space, home)
    corpus = cached(space.data, space.tokenizer, home.corpora)
    if corpus is None:
        raise TunerError(
            f"the data of {options.space} has not been prepared in {home.corpora}; run 'tuner data "
            f"prepare --space {options.space}{home_option(options)}'"
        )
    return _print_corpus(options, space, corpus)


def run_sample(options: argparse.Namespace) -> int:
    """Show the first training sequences, or pairs, that a trial of a seed reads."""
    space, corpus = _prepared(options, None)
    results, _ = consoles(options)
    if corpus.has_pairs:
        pairs = first_pairs(corpus, options.seed, options.sequences)
        _print_pairs(results, corpus, pairs, options.seed)
        print_json(options, {"pairs": pairs})
        return 0
    length = max(_context_lengths(space, corpus))
    if corpus.answers is not None:
        examples = first_examples(corpus, options.seed, options.sequences, length)
        _print_examples(results, corpus, examples, options.seed)
        print_json(options, {"context_length": length, "examples": examples})
        return 0
    sample = first_sequences(corpus, options.seed, options.sequences, length)
    _print_sequences(results, corpus, sample, options.seed, length)
    print_json(options, {"context_length": length, "sequences": sample})
    return 0


def _prepared(options: argparse.Namespace, processes: int | None) -> tuple[SearchSpace, Corpus]:
    """Return a space and its corpus, prepared if it is not cached."""
    space, home = space_of(options), home_of(options)
    _, progress = consoles(options)
    with show_progress(progress) as on_progress:
        started, _ = warm_started(space, home)
        return started, prepare(
            started.data, started.tokenizer, home.corpora, processes=processes,
            on_progress=on_progress,
        )  # fmt: skip


def _context_lengths(space: SearchSpace, corpus: Corpus) -> set[int]:
    """Return the context lengths of a space; raise TunerError if the text is too short for one."""
    lengths = context_lengths(space, corpus.tokenizer.vocab_size)
    check_contexts(space, DataFacts.of(corpus, lengths))
    return lengths


# tuner data info ---------------------------------------------------------------------------------


def _print_corpus(options: argparse.Namespace, space: SearchSpace, corpus: Corpus) -> int:
    """Print the sizes of a corpus, and return the exit status."""
    console, _ = consoles(options)
    lengths = set() if corpus.has_pairs else _context_lengths(space, corpus)
    summary = CorpusSummary.of(corpus, lengths)
    title = f"{summary.source}, {counted(summary.files, 'file')}"
    splits = {"train": summary.train, "validation": summary.validation}
    show = _print_pair_sizes if corpus.has_pairs else _print_document_sizes
    (show if corpus.answers is None else _print_example_sizes)(console, title, splits)
    for note in data_notes(corpus, lengths):
        console.write_line(note)
    for line in example_lines(corpus, lengths):
        console.write_line(line)
    for length, count in (summary.sequences or {}).items() if corpus.answers is None else ():
        console.print(f"{count:,} training sequences of {length} tokens")
    largest = sorted(corpus.files, key=lambda file: -file.bytes)[:_LARGEST_FILES]
    console.print(
        "largest files: " + ", ".join(f"{file.name} ({file.bytes:,} bytes)" for file in largest)
    )
    console.print(
        f"vocabulary {summary.vocab_size:,} ({summary.pattern}), ids as {corpus.train.dtype}; "
        f"fingerprints: data {short_hash(summary.data_fingerprint)}, tokenizer "
        f"{short_hash(summary.tokenizer_fingerprint)}"
    )
    print_json(options, summary)
    return 0


def _print_document_sizes(console: PlainConsole, title: str, splits: dict[str, SplitSizes]) -> None:
    console.table(
        title,
        ["split", "documents", "bytes", "tokens", "bytes/token", "median tokens", "longest"],
        [
            [
                split, f"{sizes.documents:,}", *_cells(sizes),
                f"{sizes.median_document_tokens:,.0f}", f"{sizes.longest_document_tokens:,}",
            ]
            for split, sizes in splits.items()
        ],
    )  # fmt: skip


def _print_pair_sizes(console: PlainConsole, title: str, splits: dict[str, SplitSizes]) -> None:
    console.table(
        title,
        ["split", "pairs", "bytes", "tokens", "bytes/token"],
        [[split, f"{sizes.pairs:,}", *_cells(sizes)] for split, sizes in splits.items()],
    )
    console.table(
        None,
        ["tokens of", "median", "90 % have at most", "longest"],
        [
            [f"{split} {side}s", *(f"{n:,.0f}" for n in (each.median, each.p90, each.longest))]
            for split, sizes in splits.items()
            for side, each in (("source", sizes.source_tokens), ("target", sizes.target_tokens))
            if each is not None
        ],
    )
    console.print(
        f"{splits['train'].pairs:,} training pairs; a length counts the {END_OF_TEXT} at its end"
    )


def _print_example_sizes(console: PlainConsole, title: str, splits: dict[str, SplitSizes]) -> None:
    console.table(
        title,
        ["split", "examples", "bytes", "tokens", "of answers", "median", "90 % have", "longest"],
        [
            [
                split, f"{sizes.examples:,}", f"{sizes.bytes:,}", f"{sizes.tokens:,}",
                f"{sizes.answer_tokens:,}",
                *(f"{n:,.0f}" for n in (each.median, each.p90, each.longest)),
            ]
            for split, sizes in splits.items()
            if (each := sizes.example_tokens) is not None
        ],
    )  # fmt: skip


def _cells(sizes: SplitSizes) -> list[str]:
    return [f"{sizes.bytes:,}", f"{sizes.tokens:,}", f"{sizes.bytes_per_token:.2f}"]


# tuner data sample -------------------------------------------------------------------------------


def _print_sequences(
    console: PlainConsole, corpus: Corpus, sample: Sequence[SampleSequence], seed: int, length: int
) -> None:
    size = corpus.num_sequences("train", length)
    console.print(
        f"the first {len(sample)} of {size:,} training sequences of seed {seed}, {length} tokens "
        f"each; the targets are the same tokens shifted by one"
    )
    for sequence in sample:
        console.rule(f"sequence {sequence.number}", style="dim", align="left")
        console.print(coloured(corpus.tokenizer, sequence.ids))


def _print_pairs(
    console: PlainConsole, corpus: Corpus, pairs: Sequence[SamplePair], seed: int
) -> None:
    size = len(corpus.pairs("train"))
    console.print(
        f"the first {len(pairs)} of {size:,} training pairs of seed {seed}: each a source and its "
        f"target"
    )
    for pair in pairs:
        console.rule(f"pair {pair.number}", style="dim", align="left")
        console.print(_beginning(corpus, pair.source_ids))
        console.print(Text("→ ", "bold") + _beginning(corpus, pair.target_ids))


def _print_examples(
    console: PlainConsole, corpus: Corpus, examples: Sequence[SampleExample], seed: int
) -> None:
    console.print(
        f"{len(examples)} training examples, of the first sequences of seed {seed}; tokens that "
        f"are learned are in colours"
    )
    sequence = None
    for example in examples:
        if example.sequence != sequence:
            sequence = example.sequence
            console.rule(f"sequence {sequence}", style="dim", align="left")
        text = Text()
        for is_learned, run in groupby(
            zip(example.learned, example.ids, strict=True), key=lambda pair: pair[0]
        ):
            ids = [token for _, token in run]
            shown = corpus.tokenizer.decode(ids)
            text.append(coloured(corpus.tokenizer, ids) if is_learned else Text(shown, "dim"))
        console.print(text)


def _beginning(corpus: Corpus, ids: list[int]) -> Text:
    """Return tokens in colours, cut so that they do not fill the screen."""
    text = coloured(corpus.tokenizer, ids[:_MOST_SHOWN_TOKENS])
    hidden = len(ids) - _MOST_SHOWN_TOKENS
    return text.append(f" … {hidden:,} more tokens", "dim") if hidden > 0 else text
