"""Examples of a fine-tuning as sequences of token ids, of which only some are learned.

An example is its tokens and, for each token, whether it belongs to an answer. A sequence holds one
example, or several that do not see each other; the rest of it is padding.

S = any shape of sequences, N = examples, T = tokens of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from model.corpus.dataset import IGNORED, Batch, Dataset, Ints, Tokens
from model.corpus.packing import Packing, one_each, packed
from model.spec.architecture import Architecture

Marks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ExampleSizes:
    """What sequences of some length hold of a split.

    Attributes:
        sequences: number of sequences.
        examples: number of examples in them.
        dropped: examples of which no token that is learned is left; they are in no sequence.
        cut: examples whose end is cut off, without those that are dropped.
        tokens: tokens of the examples that are read.
        cut_tokens: tokens that are cut off, with those of dropped examples.
        learned: tokens of the examples that are learned: targets of an epoch.
        fill: share of the places of the sequences that hold a token.
    """

    sequences: int
    examples: int
    dropped: int
    cut: int
    tokens: int
    cut_tokens: int
    learned: int
    fill: float


class ExampleDataset(Dataset):
    """The examples of one split of a corpus.

    Args:
        tokens: 1-D ids of all examples; of a memory map, only the requested examples are read.
        ends: (N,) int64, end of each example in `tokens`.
        answers: 1 for each token of an answer, otherwise 0, as long as `tokens`.
        padding: id in places without a token.
        learns_all: True if all tokens of an example are learned but the first; otherwise those of
            answers.
        is_packed: True if sequences hold several examples.
    """

    def __init__(
        self, tokens: Tokens, ends: Ints, answers: Marks, padding: int, *, learns_all: bool = False,
        is_packed: bool = True,
    ) -> None:  # fmt: skip
        # other processes get copies of memory maps
        self.tokens, self.answers = np.asarray(tokens), np.asarray(answers)
        self.bounds = np.concatenate([np.zeros(1, np.int64), ends])  # (N + 1,)
        self._padding, self._learns_all, self._is_packed = padding, learns_all, is_packed
        self._layouts: dict[int, Packing] = {}
        self._counts: dict[int, Ints] = {}

    @property
    @override
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.answers.nbytes

    def __len__(self) -> int:
        """N."""
        return len(self.bounds) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, (N,) int64."""
        return np.diff(self.bounds)

    def example(self, number: int) -> tuple[Ints, Marks]:
        """Return the ids of an example, and 1 for each that is learned, otherwise 0."""
        begin, stop = self.bounds[number : number + 2]
        marks = np.array(self.answers[begin:stop])
        if self._learns_all:
            marks[:] = 1
        marks[:1] = 0  # nothing comes before it
        return np.array(self.tokens[begin:stop], np.int64), marks

    @override
    def num_sequences(self, a: Architecture) -> int:
        return self.layout(a.context_length).num_sequences

    @override
    def batch(self, numbers: Ints, a: Architecture) -> Batch:
        """Return sequences; an example that is too long loses its end.

        Args:
            numbers: of the sequences, int64, any shape S.
            a: architecture of a language model.
        """
        length, layout = a.context_length, self.layout(a.context_length)
        flat = numbers.reshape(-1)
        inputs = np.full((len(flat), length), self._padding, np.int64)
        targets = np.full_like(inputs, IGNORED)
        begins = np.zeros_like(inputs)
        for row, number in enumerate(flat.tolist()):
            place = 0
            for example in layout.examples[layout.bounds[number] : layout.bounds[number + 1]]:
                ids, learned = self.example(example)
                size = min(len(ids) - 1, length)
                here = slice(place, place + size)
                inputs[row, here] = ids[:size]
                targets[row, here] = np.where(learned[1 : size + 1], ids[1 : size + 1], IGNORED)
                begins[row, here] = place
                place += size
            begins[row, place:] = place
        shape = (*numbers.shape, length)
        return Batch(
            inputs.reshape(shape),
            targets.reshape(shape),
            begins=begins.reshape(shape) if self._is_packed else None,
        )

    @override
    def num_targets(self, numbers: Ints, a: Architecture) -> Ints:
        layout, learned = self.layout(a.context_length), self._learned(a.context_length)
        before = np.concatenate([np.zeros(1, np.int64), learned[layout.examples].cumsum()])
        counts: Ints = before[layout.bounds[numbers + 1]] - before[layout.bounds[numbers]]
        return counts

    def layout(self, length: int) -> Packing:
        """Return which examples the sequences of a length hold; the others are dropped."""
        if length not in self._layouts:
            (kept,) = np.nonzero(self._learned(length))
            sizes = np.minimum(self.lengths[kept] - 1, length)
            self._layouts[length] = (
                packed(kept, sizes, length) if self._is_packed else one_each(kept)
            )
        return self._layouts[length]

    def sizes(self, length: int) -> ExampleSizes:
        """Count what sequences of a length hold."""
        layout, lengths = self.layout(length), self.lengths
        kept = lengths[layout.examples]
        read = np.minimum(kept, length + 1)
        places = max(1, layout.num_sequences * length)
        return ExampleSizes(
            sequences=layout.num_sequences,
            examples=len(kept),
            dropped=len(lengths) - len(kept),
            cut=int((kept > read).sum()),
            tokens=int(read.sum()),
            cut_tokens=int(lengths.sum() - read.sum()),
            learned=int(self._learned(length).sum()),
            fill=float((read - 1).sum() / places),
        )

    def _learned(self, length: int) -> Ints:
        """Return the tokens of each example that are learned in sequences of a length, (N,)."""
        if length not in self._counts:
            stops = np.minimum(self.bounds[1:], self.bounds[:-1] + length + 1)
            if self._learns_all:
                counts = np.maximum(stops - self.bounds[:-1] - 1, 0)
            else:
                # from the second token of an example up to where it is cut
                spans = np.stack([self.bounds[:-1] + 1, np.maximum(stops, self.bounds[:-1] + 1)], 1)
                padded = np.concatenate([self.answers, np.zeros(2, np.uint8)])
                counts = np.add.reduceat(padded, spans.reshape(-1), dtype=np.int64)[::2]
                counts[spans[:, 0] >= spans[:, 1]] = 0
            self._counts[length] = counts
        return self._counts[length]


def num_known(train: ExampleDataset, validation: ExampleDataset) -> tuple[int, int]:
    """Count validation examples that are also training examples, and those whose prompt is one's.

    Returns:
        The number of equal examples, and the number with an equal beginning up to the first answer.
    """
    known = [_keys(train, whole=whole) for whole in (True, False)]
    seen = [_keys(validation, whole=whole) for whole in (True, False)]
    equal, prompts = (
        sum(key in there for key in keys) for keys, there in zip(seen, map(set, known), strict=True)
    )
    return equal, prompts


def _keys(data: ExampleDataset, *, whole: bool) -> list[bytes]:
    keys = []
    for begin, stop in zip(data.bounds[:-1].tolist(), data.bounds[1:].tolist(), strict=True):
        end = stop if whole else begin + int(np.argmax(data.answers[begin:stop]))
        keys.append(blake2b(data.tokens[begin:end].tobytes(), digest_size=16).digest())
    return keys
