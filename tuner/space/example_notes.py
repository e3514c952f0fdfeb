"""Sentences on prepared examples: what is learned, what the context cuts off, what is known."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from model.corpus.corpus import Corpus
from model.corpus.examples import ExampleSizes
from model.spec.data import SplitName
from tuner.texts.formatting import counted

_SPLITS: tuple[SplitName, SplitName] = ("train", "validation")
_NAMES = {"train": "training", "validation": "validation"}


def example_lines(corpus: Corpus, lengths: Collection[int]) -> list[str]:
    """Say how many examples there are, and what sequences of the context lengths hold of them."""
    if corpus.answers is None:
        return []
    train, validation = map(corpus.examples, _SPLITS)
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


def example_remarks(corpus: Corpus, lengths: Collection[int]) -> list[str]:
    """Name what the context cuts off, and examples that are in both parts; empty if nothing."""
    if corpus.answers is None:
        return []
    return [*_cuts(corpus, lengths), *_known(corpus)]


def _cuts(corpus: Corpus, lengths: Collection[int]) -> Iterator[str]:
    for length in sorted(lengths):
        for split in _SPLITS:
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
