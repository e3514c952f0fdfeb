"""Documents, and how a stream of text becomes them: cut at separators, long ones in pieces.

What comes out is a function of the text alone, wherever the blocks that it is read in end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# The longest text of one item, in characters: which bounds the memory of whoever works on it.
PIECE = 2**22

# How far a piece is searched backwards at a time; nearly always the first time is enough.
_WINDOW = 2**12
_BREAK = re.compile(r"\S ")


class Document(NamedTuple):
    """A document, or a piece of one.

    Attributes:
        name: unique within a source, but for the two documents of a pair, which share it; depends
            on the name of the file and the number of the row or part in it only.
        text: never white space only, unless it is a piece of a longer document.
        ends: false if the text of the document goes on in the next item, which has the same name.
    """

    name: str
    text: str
    ends: bool = True


class Part(NamedTuple):
    """A text between two separators, or a piece of one."""

    number: int
    text: str
    ends: bool


def parts(texts: Iterable[str], separator: str) -> Iterator[Part]:
    """Cut a stream of text at the separators, and long parts into pieces.

    Args:
        texts: the text in blocks of any size.
        separator: what stands between parts.

    Yields:
        The parts that are not white space only, numbered as `"".join(texts).split(separator)`
        numbers them.
    """
    return _filled(_all_parts(texts, separator))


def _all_parts(texts: Iterable[str], separator: str) -> Iterator[Part]:
    number, rest = 0, ""
    for text in texts:
        *whole, rest = (rest + text).split(separator)
        for part in whole:
            for piece, ends in pieces(part):
                yield Part(number, piece, ends)
            number += 1
        # The last characters may be the beginning of a separator.
        while len(rest) - len(separator) + 1 > PIECE:
            cut = _cut(rest)
            yield Part(number, rest[:cut], False)
            rest = rest[cut:]
    for piece, ends in pieces(rest):
        yield Part(number, piece, ends)


def _filled(cut: Iterable[Part]) -> Iterator[Part]:
    """Without the parts that are white space only; blank pieces wait until it is known."""
    blank: list[Part] = []
    begun = False
    for part in cut:
        if begun or (part.text and not part.text.isspace()):
            yield from blank
            yield part
            blank.clear()
            begun = not part.ends
        elif part.ends:
            blank.clear()
        else:
            blank.append(part)


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a document, and whether each is the last one.

    A piece has at most `PIECE` characters. It ends before the last space that follows a character
    that is not white space, because no tokenizer joins the two, or anywhere if there is none.
    """
    begin = 0
    while len(text) - begin > PIECE:
        cut = _cut(text, begin)
        yield text[begin:cut], False
        begin = cut
    yield text[begin:], True


def _cut(text: str, begin: int = 0) -> int:
    """Where a piece ends that begins somewhere in a text and does not reach its end."""
    stop = begin + PIECE + 1  # the space itself belongs to the next piece
    while stop > begin + 1:
        start = max(begin, stop - _WINDOW)
        breaks = [match.end() - 1 for match in _BREAK.finditer(text, start, stop)]
        if breaks:
            return breaks[-1]
        # The next window ends with the space that this one may begin with.
        stop = start + 1 if start > begin else begin
    return begin + PIECE


class TableRow(NamedTuple):
    """What a reader takes of a row of a table.

    Attributes:
        number: from 0, of all rows.
        where: file and place, to begin a message with.
        texts: of the fields that are asked for, in that order; None where there is none.
    """

    number: int
    where: str
    texts: tuple[str | None, ...]


def pair(name: str, source: str, target: str) -> Iterator[Document]:
    """A pair as two documents of one name: the source and then the target."""
    for text in (source, target):
        for piece, ends in pieces(text):
            yield Document(name, piece, ends)


def documents_of_rows(name: str, texts: Iterable[tuple[int, str]]) -> Iterator[Document]:
    """One document per numbered text, without those that are white space only."""
    for number, text in texts:
        if not text or text.isspace():
            continue
        if len(text) <= PIECE:
            yield Document(f"{name}#{number}", text)
        else:
            for piece, ends in pieces(text):
                yield Document(f"{name}#{number}", piece, ends)
