"""The order in which a trial reads its training sequences: a keyed permutation for each epoch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from model.corpus.dataset import Ints
from model.keys import derive_key
from model.randomness import permute

_BLOCK = 1024  # positions of a trial's stream that are put in order together


def data_order(seed: int, positions: Ints, size: int) -> Ints:
    """Which training sequence a trial reads at each position of its endless stream.

    Every epoch is a keyed permutation of its own, so each sequence is read once an epoch.

    Args:
        seed: of the trial.
        positions: sequences read before, any shape, int64.
        size: |Data|, training sequences.

    Returns:
        Sequence numbers in [0, size), of the shape of `positions`.
    """
    blocks, within = positions // _BLOCK, positions % _BLOCK
    numbers = np.empty_like(positions)
    for block in np.unique(blocks).tolist():
        here = blocks == block
        numbers[here] = _order_of_block(seed, block, size)[within[here]]
    return numbers


@lru_cache(2048)  # 8 kB each
def _order_of_block(seed: int, block: int, size: int) -> Ints:
    """`data_order` of the positions of one block, all at once: few at a time cost as much."""
    positions = block * _BLOCK + np.arange(_BLOCK)
    epochs, within = positions // size, positions % size
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        numbers[here] = permute(within[here], size, derive_key(seed, "order", epoch))
    return numbers
