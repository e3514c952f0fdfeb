"""What a model reads: from the numbers of sequences to token ids, for texts and for pairs.

T = tokens of a sequence, or of a target; S = tokens of a source.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.spec.architecture import Architecture

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]

IGNORED = -100  # a target that takes no part, as in torch


class Batch(NamedTuple):
    """Sequences, and what should be predicted at each of their tokens.

    Attributes:
        inputs: (..., T) int64 token ids.
        targets: (..., T) int64, IGNORED where there is none.
        sources: (..., S) int64 token ids; None without an encoder.
    """

    inputs: Ints
    targets: Ints
    sources: Ints | None = None


class Dataset(Protocol):
    """One split of a corpus, as sequences with numbers."""

    @property
    def nbytes(self) -> int:
        """Memory that its token ids take."""
        ...

    def num_sequences(self, a: Architecture) -> int:
        """How many there are."""
        ...

    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """The sequences of some numbers, int64 of any shape."""
        ...

    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        """How many tokens of each should be predicted: int64, the shape of `numbers`."""
        ...


class TextDataset:
    """A text, cut into sequences that do not overlap.

    Args:
        tokens: 1-D token ids.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    @property
    def nbytes(self) -> int:
        """See `Dataset`."""
        return self.tokens.nbytes

    def num_sequences(self, a: Architecture) -> int:
        """See `Dataset`."""
        return num_sequences(len(self.tokens), a.context_length)

    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """See `Dataset`; a target is the token after its input."""
        return Batch(*sequences(self.tokens, numbers, a.context_length))

    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        """See `Dataset`."""
        return np.full(numbers.shape, a.context_length, np.int64)


def num_sequences(num_tokens: int, context_length: int) -> int:
    """Sequences of a text that do not overlap, each with its next token."""
    return max(0, num_tokens - 1) // context_length


def sequences(tokens: Tokens, indices: Ints, context_length: int) -> tuple[Ints, Ints]:
    """The sequences of some numbers; sequence i begins at token i·T.

    Args:
        tokens: 1-D token ids.
        indices: int64, any shape S, below `num_sequences`.
        context_length: T.

    Returns:
        Inputs and targets, int64, S + (T,); a target is the token after its input.
    """
    offsets = indices[..., None] * context_length + np.arange(context_length)
    return tokens[offsets].astype(np.int64), tokens[offsets + 1].astype(np.int64)
