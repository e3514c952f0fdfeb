"""Facts of data that has not been read yet, estimated."""

from __future__ import annotations

from model.sources.registry import text_bytes
from model.tokenizer.load import vocab_size_of
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace

# Measured on the standard library with a vocabulary of 2,048.
_BYTES_PER_TOKEN = 3.1
_BYTES_PER_PAIR = 2_000  # most of the library is in no pair
ASSUMED_BYTES = 1_000_000_000  # of data whose size is unknown before it is read


def estimated_facts(space: SearchSpace) -> DataFacts:
    """Return facts of the data, estimated from the bytes of the source.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    size = text_bytes(space.data)
    num_bytes = ASSUMED_BYTES if size is None else size
    amount = num_bytes / (_BYTES_PER_PAIR if space.data.pairs else _BYTES_PER_TOKEN)
    held_out = space.data.validation_fraction
    vocab_size = vocab_size_of(space.tokenizer)
    longest = max(shape.context_length for shape in space.shapes(vocab_size))
    return DataFacts(
        vocab_size=vocab_size,
        train_size=max(longest + 1, round(amount * (1 - held_out))),
        validation_size=max(longest + 1, round(amount * held_out)),
        data_fingerprint="",
        tokenizer_fingerprint="",
        has_pairs=space.data.pairs,
    )
