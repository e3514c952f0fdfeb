"""Order in which a trial reads its training sequences: a keyed permutation of each epoch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from model.corpus.dataset import Ints
from model.keys import derive_key
from model.randomness import permute

_BLOCK = 1024  # positions of a trial's stream that are permuted in one call


def data_order(seed: int, positions: Ints, size: int) -> Ints:
    """Return the training sequences that a trial reads at some positions of its endless stream.

    Every epoch has its own keyed permutation, so each sequence is read once an epoch.

    Args:
        seed: of the trial.
        positions: positions in the stream, counted from 0 over all epochs, any shape, int64.
        size: |Data|, training sequences.

    Returns:
        Sequence numbers in [0, size), in the shape of `positions`.
    """
    blocks, within = positions // _BLOCK, positions % _BLOCK
    numbers = np.empty_like(positions)
    for block in np.unique(blocks).tolist():
        in_block = blocks == block
        numbers[in_block] = _order_of_block(seed, block, size)[within[in_block]]
    return numbers


@lru_cache(2048)  # 8 kB each
def _order_of_block(seed: int, block: int, size: int) -> Ints:
    """Return `data_order` of all positions of a block: a few positions would take as long."""
    positions = block * _BLOCK + np.arange(_BLOCK)
    epochs, within = positions // size, positions % size
    numbers = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        in_epoch = epochs == epoch
        numbers[in_epoch] = permute(within[in_epoch], size, derive_key(seed, "order", epoch))
    return numbers
