"""The split of a source into a training and a validation part: by document, or by position.

By document, each document belongs to one part, by a hash of its name: documents that are added
later move no other one. By position, the text before a cut is the training part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from model.errors import CorpusError
from model.sources.documents import Document
from model.sources.registry import documents
from model.spec.data import DataConfig, SplitName

# Characters before the exact position in which a better place for the cut is searched.
_WINDOW = 1 << 12
# Ends of paragraphs, then of lines, then of words: the space begins the next word.
_ENDS = tuple(map(re.compile, (r"\n\r?\n", r"\n", r"\S(?= )")))


def place(name: str) -> float:
    """Return the place of a document in the split, in [0, 1): a hash of its name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


class DocumentSplit(NamedTuple):
    """A split by document: the places up to a limit are the validation part."""

    limit: float

    def parts(self, pieces: Iterable[Document]) -> Iterator[tuple[SplitName, Document]]:
        """Yield documents, or pieces of them, with the part to which they belong."""
        for piece in pieces:
            yield "train" if place(piece.name) > self.limit else "validation", piece


class PositionSplit(NamedTuple):
    """A split by position: the first `cut` characters of all documents are the training part."""

    cut: int

    def parts(self, pieces: Iterable[Document]) -> Iterator[tuple[SplitName, Document]]:
        """Yield documents, or pieces of them, with the part to which they belong.

        A document at the cut becomes two, one in each part.
        """
        left = self.cut
        for piece in pieces:
            size = len(piece.text)
            if left <= 0:
                yield "validation", piece
            elif left > size:
                yield "train", piece
            else:
                yield "train", piece._replace(text=piece.text[:left], ends=True)
                if left < size:
                    yield "validation", piece._replace(text=piece.text[left:])
            left -= size


Split = DocumentSplit | PositionSplit


def is_one_document(data: DataConfig) -> bool:
    """Return True if a source has one document only; reading stops at the second."""
    names = (piece.name for piece in documents(data))
    first = next(names, None)
    return first is not None and all(name == first for name in names)


def position_split(data: DataConfig) -> PositionSplit:
    """Return the split whose validation part is the last `validation_fraction` of the text.

    The cut is moved back, by at most a quarter of the smaller part, to the end of a document, a
    paragraph, a line or a word, the first of these that is near.

    Raises:
        CorpusError: if the source cannot be read, or has a single character.
    """
    size = sum(len(piece.text) for piece in documents(data))
    if size < 2:
        raise CorpusError("data: a text of one character cannot be split; give more text")
    target = min(max(round(size * (1 - data.validation_fraction)), 1), size - 1)
    window = min(_WINDOW, target // 4, (size - target) // 4)
    return PositionSplit(target - window + _cut_in(data, target - window, target))


def _cut_in(data: DataConfig, begin: int, end: int) -> int:
    """Return the best place for a cut in a part of the text, counted from its begin."""
    texts, ends, position = list[str](), list[int](), 0
    for piece in documents(data):
        stop = position + len(piece.text)
        if stop > begin:
            texts.append(piece.text[max(0, begin - position) : max(0, end - position)])
        if piece.ends and begin < stop <= end:
            ends.append(stop - begin)
        position = stop
        if position >= end:
            break
    if ends:
        return ends[-1]
    text = "".join(texts)
    for pattern in _ENDS:
        if matches := [match.end() for match in pattern.finditer(text)]:
            return matches[-1]
    return end - begin
