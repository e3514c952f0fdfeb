"""Packing: examples of different lengths into as few sequences of one length as possible."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model.corpus.dataset import Ints


class Packing(NamedTuple):
    """Which examples each sequence holds.

    Attributes:
        examples: (N,) numbers of the examples, sequence by sequence.
        bounds: (R + 1,) begin of each of R sequences in `examples`, and the end of the last.
    """

    examples: Ints
    bounds: Ints

    @property
    def num_sequences(self) -> int:
        """Number of sequences, R."""
        return len(self.bounds) - 1


def one_each(examples: Ints) -> Packing:
    """Return the layout with an example in each sequence."""
    return Packing(examples, np.arange(len(examples) + 1))


def packed(examples: Ints, sizes: Ints, length: int) -> Packing:
    """Put each example into the fullest sequence that still has room, the longest examples first.

    A function of the sizes alone. With N examples it takes N·log N and N steps on whole numbers.

    Args:
        examples: (N,) numbers of the examples.
        sizes: (N,) places that each takes, in [1, length].
        length: places of a sequence.

    Source: Johnson 1974 (doi:10.1137/0203025), best fit decreasing: at most 11/9 of the fewest
    possible sequences, and one.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]  # free places → sequences
    free = 0  # bit n is set if a sequence has n free places
    for place in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[place])
        above = free >> size
        if above:
            room = size + (above & -above).bit_length() - 1
            row = with_room[room].pop()
            free &= ~(int(not with_room[room]) << room)
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(place)
        if room > size:
            with_room[room - size].append(row)
            free |= 1 << (room - size)
    order = np.array([place for row in rows for place in row], np.int64)
    return Packing(examples[order], np.cumsum([0, *map(len, rows)], dtype=np.int64))
