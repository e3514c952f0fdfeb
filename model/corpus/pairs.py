"""Pairs of a corpus as rows of token ids: what an encoder reads, a decoder reads, and it predicts.

In the token stream a pair is `source <|endoftext|> target <|endoftext|>`. What looks like a special
token in a document is text, so that the ids of a text never hold the one that ends it.

S = any shape of rows, N = pairs, T = tokens of a row.
"""

from __future__ import annotations

import numpy as np

from model.corpus.dataset import IGNORED, Batch, Ints, Tokens
from model.spec.architecture import Architecture


class PairDataset:
    """The pairs of one split of a corpus, numbered from 0.

    Args:
        tokens: 1-D ids of any integer type; of a memory map, only the pairs that are asked for are
            read.
        document_ends: where the sources and targets end in `tokens`, in turn, behind their
            end_of_text; 1-D int64, (2N,).
        end_of_text: id of the token that ends a source or a target, and occurs nowhere else.

    Attributes:
        tokens: as given.
        bounds: (2N + 1,), where sources and targets begin, in turn, and where the last one ends.
        end_of_text: as given.

    Raises:
        ValueError: if a source has no target.
    """

    def __init__(self, tokens: Tokens, document_ends: Ints, end_of_text: int) -> None:
        if len(document_ends) % 2:
            raise ValueError(
                f"each pair has two ends, got {len(document_ends)}; a source has no target"
            )
        self.tokens = np.asarray(tokens)  # a memory map would be copied into another process
        self.bounds = np.concatenate([np.zeros(1, np.int64), document_ends])
        self.end_of_text = end_of_text

    @property
    def nbytes(self) -> int:
        """See `Reading`."""
        return self.tokens.nbytes

    def __len__(self) -> int:
        """N."""
        return len(self.bounds) // 2

    def source(self, number: int) -> Ints:
        """The ids of a source without the end_of_text, 1-D int64.

        Raises:
            IndexError: if there is no such pair.
        """
        return self._text(number, 0)

    def target(self, number: int) -> Ints:
        """The ids of a target without the end_of_text, 1-D int64.

        Raises:
            IndexError: if there is no such pair.
        """
        return self._text(number, 1)

    def lengths(self) -> tuple[Ints, Ints]:
        """Tokens of all sources and of all targets with their end_of_text, (N,) int64 each.

        These are the source_length and target_length in which nothing of a pair is cut.
        """
        lengths = np.diff(self.bounds)
        return lengths[::2], lengths[1::2]

    def num_sequences(self, a: Architecture) -> int:
        """N: see `Reading`."""
        return len(self)

    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """See `Reading`; what does not fit is cut, the end_of_text too.

        Args:
            numbers: of the pairs, int64, any shape S.
            a: an architecture with an encoder.

        Returns:
            inputs: S + (context_length,); end_of_text, then the target's ids, then end_of_text as
                padding.
            targets: S + (context_length,); the id that follows each input: the target's ids, then
                end_of_text, then IGNORED.
            sources: S + (source_length,); the source's ids, at most source_length - 1 of them, then
                end_of_text to the end of the row. So the first end_of_text is the source's own,
                what follows is padding, and no row is without ids.

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

    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        """How many targets of each row are not IGNORED: S, in [1, context_length].

        Raises:
            IndexError: if there is no such pair.
        """
        begins, stops = self._spans(numbers, 1)
        counts: Ints = np.minimum(stops - begins, a.context_length)
        return counts

    def _spans(self, numbers: Ints, side: int) -> tuple[Ints, Ints]:
        """Where the sources (side 0) or targets (side 1) begin and end, with their end_of_text."""
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
        """The first ids of the sources or targets, with (1) or without (0) their end_of_text.

        Returns:
            S + (length,), int64; padding where there are no more ids.
        """
        begins, stops = self._spans(numbers, side)
        index = begins[..., None] + np.arange(length)
        is_text = index < stops[..., None] - 1 + ends
        # Behind the end any place will do that exists and is near.
        ids = self.tokens[np.minimum(index, stops[..., None] - 1)]
        return np.where(is_text, ids.astype(np.int64), padding)
