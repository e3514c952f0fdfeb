"""Facts of data that has not been read yet, estimated."""

from __future__ import annotations

from model.sources.registry import text_bytes
from model.tokenizer.load import vocab_size_of
from tuner.space.conflicts import context_lengths
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace

# Measured on the standard library with a vocabulary of 2,048.
_BYTES_PER_TOKEN = 3.1
_BYTES_PER_PAIR = 2_000  # most of the library is in no pair
_BYTES_PER_EXAMPLE = 1_000  # about 250 tokens
ASSUMED_BYTES = 1_000_000_000  # of data whose size is unknown before it is read


def estimated_facts(space: SearchSpace) -> DataFacts:
    """Return facts of the data, estimated from the bytes of the source.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    size = text_bytes(space.data)
    num_bytes = ASSUMED_BYTES if size is None else size
    each = _BYTES_PER_PAIR if space.data.pairs else _BYTES_PER_TOKEN
    each = _BYTES_PER_EXAMPLE if space.data.examples else each
    amount = num_bytes / each
    held_out = space.data.validation_fraction
    vocab_size = vocab_size_of(space.tokenizer)
    lengths = context_lengths(space, vocab_size)
    longest = 0 if space.data.examples else max(lengths)
    train, validation = (
        max(longest + 1, round(amount * share)) for share in (1 - held_out, held_out)
    )

    def sequences(examples: int, length: int) -> int:
        tokens = examples * _BYTES_PER_EXAMPLE / _BYTES_PER_TOKEN
        return min(examples, max(1, round(tokens / length))) if space.data.packing else examples

    return DataFacts(
        vocab_size=vocab_size,
        train_size=train,
        validation_size=validation,
        data_fingerprint="",
        tokenizer_fingerprint="",
        has_pairs=space.data.pairs,
        layouts=tuple(
            (length, sequences(train, length), sequences(validation, length))
            for length in sorted(lengths)
            if space.data.examples
        ),
    )
