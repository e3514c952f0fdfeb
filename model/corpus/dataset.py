"""Datasets that a model reads, as sequences with numbers: of texts; pairs and examples lie beside.

T = tokens of a sequence, or of a target; S = tokens of a source.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from model.spec.architecture import Architecture

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]

IGNORED = -100  # a target without a loss, as in torch


class Batch(NamedTuple):
    """Sequences, and the target of each of their tokens.

    Attributes:
        inputs: (..., T) int64 token ids.
        targets: (..., T) int64, IGNORED where there is none.
        sources: (..., S) int64 token ids; None without an encoder.
        begins: (..., T) int64, place of the first token of each token's example, in sequences of
            several examples, which do not see each other; None for other sequences.
    """

    inputs: Ints
    targets: Ints
    sources: Ints | None = None
    begins: Ints | None = None

    @property
    def arrays(self) -> list[Ints]:
        """The arrays that there are, in the order in which models take them."""
        return [array for array in self if array is not None]


class Dataset(Protocol):
    """One split of a corpus, as sequences numbered from 0."""

    @property
    def nbytes(self) -> int:
        """Memory of the token ids, in bytes."""
        ...

    def num_sequences(self, a: Architecture) -> int:
        """Return the number of sequences."""
        ...

    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """Return the sequences with some numbers, int64 of any shape."""
        ...

    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        """Return the number of targets of each sequence, int64, in the shape of `numbers`."""
        ...


class TextDataset(Dataset):
    """A text, cut into sequences that do not overlap; a target is the token after its input.

    Args:
        tokens: 1-D token ids.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    @property
    @override
    def nbytes(self) -> int:
        return self.tokens.nbytes

    @override
    def num_sequences(self, a: Architecture) -> int:
        return num_sequences(len(self.tokens), a.context_length)

    @override
    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        return Batch(*sequences(self.tokens, numbers, a.context_length))

    @override
    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        return np.full(numbers.shape, a.context_length, np.int64)


def num_sequences(num_tokens: int, context_length: int) -> int:
    """Return the number of sequences of a text that do not overlap, each with its next token."""
    return max(0, num_tokens - 1) // context_length


def sequences(tokens: Tokens, indices: Ints, context_length: int) -> tuple[Ints, Ints]:
    """Return the sequences with some numbers; sequence i begins at token i·T.

    Args:
        tokens: 1-D token ids.
        indices: int64, any shape S, below `num_sequences`.
        context_length: T.

    Returns:
        Inputs and targets, int64, S + (T,); a target is the token after its input.
    """
    offsets = indices[..., None] * context_length + np.arange(context_length)
    return tokens[offsets].astype(np.int64), tokens[offsets + 1].astype(np.int64)
