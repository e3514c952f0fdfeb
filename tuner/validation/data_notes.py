"""Sentences on prepared data: the split, files that are no text, and what becomes of examples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator

from model.corpus.corpus import Corpus
from model.corpus.examples import ExampleSizes
from model.sources.registry import text_files
from model.sources.streams import has_nul
from model.spec.data import SPLITS, DataConfig
from tuner.texts.formatting import counted, listed

# Odds of the validation part, relative to those asked for, from which on the split is far off.
_FAR = 2.0
_MOST_INSPECTED = 1000  # files
_MOST_NAMED = 3
_NAMES = {"train": "training", "validation": "validation"}


def data_notes(corpus: Corpus, lengths: Collection[int]) -> list[str]:
    """Return what a user should know about prepared data, one sentence each.

    Args:
        corpus: the data.
        lengths: context lengths of the space.
    """
    return [
        *_split_notes(corpus),
        *_binary_notes(corpus.data),
        *_example_notes(corpus, lengths),
    ]


def _split_notes(corpus: Corpus) -> list[str]:
    asked, share = corpus.data.validation_fraction, corpus.validation_share
    if corpus.split_by == "position":
        one = "" if corpus.data.split_by else "The text is one document, so it is split by position"
        return [
            f"{one or 'The text is split by position'}: the last {_percent(share)} of it is held "
            f"out for validation."
        ]
    if 1 / _FAR <= _odds(share) / _odds(asked) <= _FAR:
        return []
    noun = corpus.data.noun
    position = ", or set data.split_by: position for the exact share"
    position = position if noun == "document" else ""
    return [
        f"The split is by {noun}, and {_percent(share)} of the text is held out instead of "
        f"{_percent(asked)} (data.validation_fraction); give more {noun}s{position}."
    ]


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _binary_notes(data: DataConfig) -> list[str]:
    files = itertools.islice(text_files(data), _MOST_INSPECTED)
    names = [file.name for file in files if has_nul(file.path)]
    if not names:
        return []
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return [
        f"NUL bytes, which no text has, are in {listed([*names[:_MOST_NAMED], *more], 'and')}; "
        f"leave the file out, or convert it to UTF-8 if it is UTF-16 (iconv)."
    ]


# examples ----------------------------------------------------------------------------------------


def example_lines(corpus: Corpus, lengths: Collection[int]) -> list[str]:
    """Say how many examples there are, and what sequences of the context lengths hold of them."""
    if corpus.answers is None:
        return []
    train, validation = map(corpus.examples, SPLITS)
    tokens = len(train.tokens) + len(validation.tokens)
    answers = sum(int(marks.sum()) for marks in corpus.answers)
    learned = "those are learned" if corpus.data.loss_on == "answers" else "all are learned"
    lines = [
        f"{len(train):,} training and {len(validation):,} validation examples of {tokens:,} tokens,"
        f" of which {answers:,} are of answers; {learned}."
    ]
    for length in sorted(lengths):
        sizes = train.sizes(length)
        of_one = "several examples each" if corpus.data.packing else "one example each"
        lines.append(
            f"{counted(sizes.sequences, 'training sequence')} of {length:,} tokens, {of_one}, "
            f"{100 * sizes.fill:.0f} % full; an epoch learns {sizes.learned:,} tokens."
        )
    return lines


def _example_notes(corpus: Corpus, lengths: Collection[int]) -> list[str]:
    """Name what the context cuts off, and examples that are in both parts; empty if nothing."""
    if corpus.answers is None:
        return []
    return [*_cuts(corpus, lengths), *_known(corpus)]


def _cuts(corpus: Corpus, lengths: Collection[int]) -> Iterator[str]:
    for length in sorted(lengths):
        for split in SPLITS:
            sizes: ExampleSizes = corpus.examples(split).sizes(length)
            if sizes.cut_tokens:
                yield (
                    f"Sequences of {length:,} tokens cut {counted(sizes.cut_tokens, 'token')} off "
                    f"the {_NAMES[split]} examples: {sizes.cut:,} of {sizes.examples:,} lose their "
                    f"end, and {sizes.dropped:,} are left out, whose answers begin later; a longer "
                    f"model.context_length keeps more."
                )


def _known(corpus: Corpus) -> Iterator[str]:
    equal, prompts = corpus.num_known
    if prompts:
        yield (
            f"{prompts:,} of {len(corpus.examples('validation')):,} validation examples have the "
            f"prompt of a training example, {equal:,} of them its answer, too, so that val_loss "
            f"says less about new ones; remove duplicates."
        )
