"""Token noise: data augmentation for text.

B = sequences, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.randomness import mix64

Ints = npt.NDArray[np.int64]


def replace_tokens(
    ids: Ints, share: float, vocab_size: int, end_of_text: int, key: int, positions: Ints
) -> Ints:
    """Replace tokens at random by ones drawn evenly from the vocabulary.

    The ends of documents stay where they are, and none is made.

    Args:
        ids: (..., T) int64 in [0, V).
        share: probability of replacing a token, in [0, 1).
        vocab_size: V.
        end_of_text: id of the token that ends a document.
        key: 64-bit key of the trial.
        positions: (...) number of each sequence in the stream that a trial reads. The noise is a
            function of it, so a sequence gets other noise in the next epoch, and the same
            however the stream is cut into batches.

    Returns:
        (..., T) int64.

    Source: Xie et al. 2017, "unigram noise" (arXiv:1703.02573), here with even frequencies.
    """
    length = ids.shape[-1]
    counters = (positions[..., None] * length + np.arange(length)).astype(np.uint64)
    bits = mix64(counters ^ np.uint64(key))
    is_replaced = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    others = (mix64(bits) % np.uint64(vocab_size - 1)).astype(np.int64)
    others += others >= end_of_text  # each id but this one
    return np.where(is_replaced & (ids != end_of_text), others, ids)
