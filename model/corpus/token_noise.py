"""Token noise: random replacement of input tokens, as data augmentation.

B = sequences, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import numpy as np

from model.corpus.dataset import Ints
from model.randomness import mix64


def replace_tokens(
    ids: Ints, share: float, vocab_size: int, end_of_text: int, key: int, positions: Ints
) -> Ints:
    """Replace random tokens by tokens drawn uniformly from the vocabulary.

    The token that ends a document is neither replaced nor drawn.

    Args:
        ids: (..., T) int64 in [0, V).
        share: probability of replacing a token, in [0, 1).
        vocab_size: V.
        end_of_text: id of the token that ends a document.
        key: 64-bit key of the trial.
        positions: (...) position of each sequence in the stream that a trial reads. The noise is
            a function of it: a sequence gets different noise in each epoch, and the noise does not
            depend on how the stream is cut into batches.

    Returns:
        (..., T) int64.

    Source: Xie et al. 2017, "unigram noise" (arXiv:1703.02573), here with uniform frequencies.
    """
    length = ids.shape[-1]
    counters = (positions[..., None] * length + np.arange(length)).astype(np.uint64)
    bits = mix64(counters ^ np.uint64(key))
    is_replaced = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    others = (mix64(bits) % np.uint64(vocab_size - 1)).astype(np.int64)
    others += others >= end_of_text  # all ids except end_of_text
    return np.where(is_replaced & (ids != end_of_text), others, ids)
