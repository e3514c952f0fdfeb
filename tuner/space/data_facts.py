"""What a specification must know of the data."""

from __future__ import annotations

from dataclasses import dataclass

from model.corpus.corpus import Corpus
from model.corpus.dataset import num_sequences
from model.spec.trial import InitFrom


@dataclass(frozen=True)
class DataFacts:
    """What a specification must know beside the space: of the data, and where trials start.

    Attributes:
        vocab_size: ids of the tokenizer.
        train_size: tokens of the training text; or pairs, if the data are pairs.
        validation_size: the same of the validation text.
        data_fingerprint: of the documents.
        tokenizer_fingerprint: of vocabulary and merges.
        end_of_text: id of the token that ends a document.
        has_pairs: whether the data are pairs.
        init_from: what trials begin with; None: random weights.
        train_tokens: of the training text or its pairs, both sides; 0 if nobody counted.
        validation_tokens: the same of the validation text.
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

    @classmethod
    def of(cls, corpus: Corpus) -> DataFacts:
        """The facts of a prepared corpus."""
        train, validation = corpus.splits
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
        )

    def sequences(self, context_length: int) -> tuple[int, int]:
        """Training and validation sequences of some length; each pair is one.

        Raises:
            ValueError: if either part has not even one.
        """
        if self.has_pairs:
            return self.train_size, self.validation_size
        parts = {"training": self.train_size, "validation": self.validation_size}
        for part, tokens in parts.items():
            if tokens <= context_length:
                raise ValueError(
                    f"context_length {context_length} is longer than the {part} text of {tokens} "
                    f"tokens; use a shorter context or more text"
                )
        return (
            num_sequences(self.train_size, context_length),
            num_sequences(self.validation_size, context_length),
        )
