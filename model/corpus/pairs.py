"""Pairs of a corpus as rows of token ids: the encoder's input, the decoder's input, the targets.

In the token stream a pair is `source <|endoftext|> target <|endoftext|>`. Text that looks like a
special token is encoded as text, so that `<|endoftext|>` occurs only at the end of a document.

S = any shape of rows, N = pairs, T = tokens of a row.
"""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from model.corpus.dataset import IGNORED, Batch, Dataset, Ints, Tokens
from model.spec.architecture import Architecture


class PairDataset(Dataset):
    """The pairs of one split of a corpus, numbered from 0.

    Args:
        tokens: 1-D ids of any integer type; of a memory map, only the requested pairs are read.
        document_ends: ends of sources and targets in `tokens`, alternating, after their
            end_of_text; 1-D int64, (2N,).
        end_of_text: id of the token that ends a source or a target, and occurs nowhere else.

    Attributes:
        tokens: 1-D token ids of all pairs.
        bounds: (2N + 1,), begins of sources and targets, alternating, and the end of the last one.
        end_of_text: id of the token that ends a source or a target.

    Raises:
        ValueError: if a source has no target.
    """

    def __init__(self, tokens: Tokens, document_ends: Ints, end_of_text: int) -> None:
        if len(document_ends) % 2:
            raise ValueError(
                f"each pair has two ends, got {len(document_ends)}; a source has no target"
            )
        self.tokens = np.asarray(tokens)  # other processes get a copy of a memory map
        self.bounds = np.concatenate([np.zeros(1, np.int64), document_ends])
        self.end_of_text = end_of_text

    @property
    @override
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def __len__(self) -> int:
        """N."""
        return len(self.bounds) // 2

    def source(self, number: int) -> Ints:
        """Return the ids of a source without the end_of_text, 1-D int64.

        Raises:
            IndexError: if there is no such pair.
        """
        return self._text(number, 0)

    def target(self, number: int) -> Ints:
        """Return the ids of a target without the end_of_text, 1-D int64.

        Raises:
            IndexError: if there is no such pair.
        """
        return self._text(number, 1)

    def lengths(self) -> tuple[Ints, Ints]:
        """Return the tokens of all sources and all targets with their end_of_text, (N,) int64 each.

        A pair is not cut where source_length and context_length are at least these.
        """
        lengths = np.diff(self.bounds)
        return lengths[::2], lengths[1::2]

    @override
    def num_sequences(self, a: Architecture) -> int:
        return len(self)

    @override
    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """Return pairs as rows of fixed length; longer texts are cut, and lose their end_of_text.

        Args:
            numbers: of the pairs, int64, any shape S.
            a: an architecture with an encoder.

        Returns:
            inputs: S + (context_length,); end_of_text, then the target's ids, then end_of_text as
                padding.
            targets: S + (context_length,); the id that follows each input: the target's ids, then
                end_of_text, then IGNORED.
            sources: S + (source_length,); the source's ids, at most source_length - 1 of them, then
                end_of_text to the end of the row. The first end_of_text is the source's own, the
                others are padding, and no row is empty.

        Raises:
            IndexError: if there is no such pair.
        """
        end = np.full((*numbers.shape, 1), self.end_of_text)
        source = self._rows(numbers, 0, 0, a.source_length - 1, self.end_of_text)
        inputs = self._rows(numbers, 1, 0, a.context_length - 1, self.end_of_text)
        return Batch(
            inputs=np.concatenate([end, inputs], axis=-1),
            targets=self._rows(numbers, 1, 1, a.context_length, IGNORED),
            sources=np.concatenate([source, end], axis=-1),
        )

    @override
    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        """Return the number of targets of each row that are not IGNORED: S, in [1, context_length].

        Raises:
            IndexError: if there is no such pair.
        """
        begins, stops = self._spans(numbers, 1)
        counts: Ints = np.minimum(stops - begins, a.context_length)
        return counts

    def _spans(self, numbers: Ints, side: int) -> tuple[Ints, Ints]:
        """Return begins and ends of sources (side 0) or targets (side 1), end_of_text included."""
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(
                f"there are {len(self)} pairs, numbered from 0; got {numbers.min()} to "
                f"{numbers.max()}"
            )
        places = 2 * numbers + side
        return self.bounds[places], self.bounds[places + 1]

    def _text(self, number: int, side: int) -> Ints:
        begin, stop = self._spans(np.array(number), side)
        return np.array(self.tokens[begin : stop - 1], np.int64)

    def _rows(self, numbers: Ints, side: int, ends: int, length: int, padding: int) -> Ints:
        """Return the first ids of sources or targets as rows of one length.

        Args:
            numbers: of the pairs, int64, any shape S.
            side: 0 for sources, 1 for targets.
            ends: 1 to include the end_of_text of the text, 0 to leave it out.
            length: of a row.
            padding: value after the last id.

        Returns:
            S + (length,), int64.
        """
        begins, stops = self._spans(numbers, side)
        index = begins[..., None] + np.arange(length)
        is_text = index < stops[..., None] - 1 + ends
        # Places after the end are padding; any valid index nearby may be read for them.
        ids = self.tokens[np.minimum(index, stops[..., None] - 1)]
        return np.where(is_text, ids.astype(np.int64), padding)
