"""Sizes of a prepared corpus, and its first training sequences or pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from model.corpus.corpus import Corpus
from model.corpus.dataset import Ints, num_sequences, sequences
from model.corpus.examples import ExampleSizes
from model.spec.data import SPLITS, SplitName


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts in tokens, the token at the end of each text included.

    Attributes:
        median: median.
        p90: length that 90 % of the texts have at most.
        longest: longest.
    """

    median: float
    p90: int
    longest: int

    @classmethod
    def of(cls, lengths: Ints) -> Lengths:
        """Summarize lengths."""
        p90 = int(np.percentile(lengths, 90, method="inverted_cdf"))
        return cls(float(np.median(lengths)), p90, int(lengths.max()))


@dataclass(frozen=True)
class SplitSizes:
    """Sizes of a split: of documents, pairs or examples.

    Attributes:
        bytes: bytes of text.
        tokens: number of tokens.
        bytes_per_token: their ratio.
        documents: number of documents.
        median_document_tokens: median length of the documents.
        longest_document_tokens: length of the longest document.
        pairs: number of pairs.
        source_tokens: lengths of the sources.
        target_tokens: lengths of the targets.
        examples: number of examples.
        answer_tokens: number of tokens of their answers.
        example_tokens: lengths of the examples.
    """

    bytes: int
    tokens: int
    bytes_per_token: float
    documents: int | None = None
    median_document_tokens: float | None = None
    longest_document_tokens: int | None = None
    pairs: int | None = None
    source_tokens: Lengths | None = None
    target_tokens: Lengths | None = None
    examples: int | None = None
    answer_tokens: int | None = None
    example_tokens: Lengths | None = None

    @classmethod
    def of(cls, corpus: Corpus, split: SplitName) -> SplitSizes:
        """Measure a split of a corpus."""
        part = corpus.split(split)
        tokens = len(part.tokens)
        sizes = part.num_bytes, tokens, part.num_bytes / tokens
        if corpus.has_pairs:
            pairs = corpus.pairs(split)
            source, target = map(Lengths.of, pairs.lengths())
            return cls(*sizes, pairs=len(pairs), source_tokens=source, target_tokens=target)
        lengths = np.diff(part.document_ends, prepend=0)
        if corpus.answers is not None:
            marks = corpus.examples(split).answers
            answers, each = int(marks.sum()), Lengths.of(lengths)
            return cls(*sizes, examples=len(lengths), answer_tokens=answers, example_tokens=each)
        return cls(*sizes, len(lengths), float(np.median(lengths)), int(lengths.max()))

    @property
    def as_json(self) -> dict[str, Any]:
        """The sizes that there are."""
        return _without_none(self)


@dataclass(frozen=True)
class CorpusSummary:
    """Origin and sizes of a prepared corpus.

    Attributes:
        source: kind of the source.
        files: number of files.
        split_by: `document` or `position`.
        validation_share: share of the text that is held out.
        vocab_size: number of token ids.
        pattern: pre-tokenizer.
        data_fingerprint: fingerprint of the documents.
        tokenizer_fingerprint: fingerprint of vocabulary and merges.
        train: sizes of the training part.
        validation: sizes of the validation part.
        sequences: number of training sequences by context length; None for pairs.
        layouts: of examples, what sequences hold of both parts, by context length.
        known_examples: validation examples that are training examples, too.
        known_prompts: validation examples with the prompt of a training example.
    """

    source: str
    files: int
    split_by: str
    validation_share: float
    vocab_size: int
    pattern: str
    data_fingerprint: str
    tokenizer_fingerprint: str
    train: SplitSizes
    validation: SplitSizes
    sequences: Mapping[int, int] | None
    layouts: Mapping[int, Mapping[SplitName, ExampleSizes]] | None = None
    known_examples: int | None = None
    known_prompts: int | None = None

    @classmethod
    def of(cls, corpus: Corpus, context_lengths: Iterable[int] = ()) -> CorpusSummary:
        """Summarize a corpus; context lengths must be shorter than its parts."""
        lengths = sorted(set(context_lengths))
        counts = {length: corpus.num_sequences("train", length) for length in lengths}
        examples: tuple[Any, ...] = ()
        if corpus.answers is not None:
            layouts = {
                length: {split: corpus.examples(split).sizes(length) for split in SPLITS}
                for length in lengths
            }
            examples = layouts, *corpus.num_known
        return cls(
            corpus.data.kind,
            len(corpus.files),
            corpus.split_by,
            corpus.validation_share,
            corpus.tokenizer.vocab_size,
            corpus.tokenizer.pattern,
            corpus.data_fingerprint,
            corpus.tokenizer_fingerprint,
            SplitSizes.of(corpus, "train"),
            SplitSizes.of(corpus, "validation"),
            None if corpus.has_pairs else counts,
            *examples,
        )

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of `tuner data info --json`."""
        return _without_none(self)


def _without_none(value: SplitSizes | CorpusSummary) -> dict[str, Any]:
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: item for name, item in named.items() if item is not None}


# samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleSequence:
    """A training sequence: its number, its text and its token ids."""

    number: int
    text: str
    ids: list[int]


@dataclass(frozen=True)
class SamplePair:
    """A training pair: its number, its texts and their token ids."""

    number: int
    source: str
    target: str
    source_ids: list[int]
    target_ids: list[int]


@dataclass(frozen=True)
class SampleExample:
    """A training example: the number of its sequence, its text, its ids, and what is learned."""

    sequence: int
    text: str
    ids: list[int]
    learned: list[bool]


def first_sequences(corpus: Corpus, seed: int, count: int, length: int) -> list[SampleSequence]:
    """Return the first training sequences that a trial of a seed reads."""
    numbers = _first_numbers(seed, count, num_sequences(len(corpus.train), length))
    rows, _ = sequences(corpus.train, numbers, length)  # (count, T)
    return [
        SampleSequence(number, corpus.tokenizer.decode(ids), ids)
        for number, ids in zip(numbers.tolist(), rows.tolist(), strict=True)
    ]


def first_pairs(corpus: Corpus, seed: int, count: int) -> list[SamplePair]:
    """Return the first training pairs that a trial of a seed reads."""
    pairs, decode = corpus.pairs("train"), corpus.tokenizer.decode
    samples = []
    for number in _first_numbers(seed, count, len(pairs)).tolist():
        source, target = pairs.source(number).tolist(), pairs.target(number).tolist()
        samples.append(SamplePair(number, decode(source), decode(target), source, target))
    return samples


def first_examples(corpus: Corpus, seed: int, count: int, length: int) -> list[SampleExample]:
    """Return the examples of the first training sequences that a trial of a seed reads."""
    data = corpus.examples("train")
    layout = data.layout(length)
    samples = []
    for number in _first_numbers(seed, count, layout.num_sequences).tolist():
        for example in layout.examples[layout.bounds[number] : layout.bounds[number + 1]]:
            ids, marks = (part[: length + 1].tolist() for part in data.example(int(example)))
            text = corpus.tokenizer.decode(ids)
            samples.append(SampleExample(number, text, ids, list(map(bool, marks))))
    return samples


def _first_numbers(seed: int, count: int, size: int) -> Ints:
    """Return the numbers of the first sequences in the order of a seed, (count,)."""
    from model.corpus.order import data_order  # loads torch

    return data_order(seed, np.arange(min(count, size)), size)
