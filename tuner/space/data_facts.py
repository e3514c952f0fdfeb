"""Facts about the data that specifications depend on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.corpus.corpus import Corpus
from model.corpus.dataset import num_sequences
from model.spec.trial import InitFrom


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data and the start of trials, which a specification needs beside the space.

    Attributes:
        vocab_size: number of token ids.
        train_size: tokens of the training text; number of pairs or examples, if the data are some.
        validation_size: tokens of the validation text, or number of its pairs or examples.
        data_fingerprint: fingerprint of the documents.
        tokenizer_fingerprint: fingerprint of vocabulary and merges.
        end_of_text: id of the token that ends a document.
        has_pairs: True if the data are pairs.
        init_from: checkpoint that trials start from; None for random weights.
        train_tokens: tokens of the training text or of both sides of its pairs; 0 if not counted.
        validation_tokens: tokens of the validation text or of both sides of its pairs.
        layouts: if the data are examples, context length, and numbers of training and validation
            sequences of it, for each context length of the space.
        longest_choice: tokens of the longest choice of a question; 0 without questions.
    """

    vocab_size: int
    train_size: int
    validation_size: int
    data_fingerprint: str
    tokenizer_fingerprint: str
    end_of_text: int = 0
    has_pairs: bool = False
    init_from: InitFrom | None = None
    train_tokens: int = 0
    validation_tokens: int = 0
    layouts: tuple[tuple[int, int, int], ...] = ()
    longest_choice: int = 0

    @classmethod
    def of(cls, corpus: Corpus, lengths: Iterable[int] = ()) -> DataFacts:
        """Return the facts of a prepared corpus.

        Args:
            corpus: the corpus.
            lengths: context lengths of the space, which count if the data are examples.
        """
        train, validation = corpus.splits
        lengths = sorted(set(lengths)) if corpus.answers is not None else []
        assert lengths or corpus.answers is None
        return cls(
            corpus.tokenizer.vocab_size,
            len(train),
            len(validation),
            corpus.data_fingerprint,
            corpus.tokenizer_fingerprint,
            corpus.end_of_text,
            corpus.has_pairs,
            train_tokens=len(corpus.train),
            validation_tokens=len(corpus.validation),
            layouts=tuple(
                (
                    length,
                    corpus.num_sequences("train", length),
                    corpus.num_sequences("validation", length),
                )
                for length in lengths
            ),
            longest_choice=corpus.choices.longest if corpus.choices else 0,
        )

    @property
    def noun(self) -> str:
        """What `train_size` counts."""
        return "examples" if self.layouts else "pairs" if self.has_pairs else "tokens"

    def size_in(self, context_length: int) -> int:
        """Return `train_size`; of examples, the number of their sequences of a context length."""
        return self.sequences(context_length)[0] if self.layouts else self.train_size

    def sequences(self, context_length: int) -> tuple[int, int]:
        """Return the numbers of training and validation sequences; a pair is one sequence.

        Raises:
            ValueError: if a text is shorter than one sequence, no example fits into one, or a
                choice of a question does not.
        """
        if context_length < self.longest_choice:
            raise ValueError(
                f"a choice of data.multiple_choice has {self.longest_choice} tokens, more than "
                f"context_length {context_length}; use a longer context or shorter choices"
            )
        for length, train, validation in self.layouts:
            if length == context_length:
                if not (train and validation):
                    part = "validation" if train else "training"
                    raise ValueError(
                        f"in sequences of {length} tokens no answer of the {part} examples is "
                        f"left; use a longer context_length"
                    )
                return train, validation
        assert not self.layouts, f"no context length {context_length} in {self.layouts}"
        if self.has_pairs:
            return self.train_size, self.validation_size
        parts = {"training": self.train_size, "validation": self.validation_size}
        for part, tokens in parts.items():
            if tokens <= context_length:
                share = "" if part == "training" else ", or a larger data.validation_fraction"
                raise ValueError(
                    f"context_length {context_length} is longer than the {part} text of {tokens} "
                    f"tokens; use a shorter context or more text{share}"
                )
        return (
            num_sequences(self.train_size, context_length),
            num_sequences(self.validation_size, context_length),
        )
