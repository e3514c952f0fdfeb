"""Documents: cut from a stream of text at separators, long documents in pieces.

The documents are a function of the text alone and do not depend on the blocks in which it is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from model.sources.limits import TooLongError

# Longest text of one item, in characters; it bounds the memory of every later step.
PIECE = 2**22

# Characters searched backwards at a time for the end of a piece; nearly always once is enough.
_WINDOW = 2**12
_BREAK = re.compile(r"\S ")


class Document(NamedTuple):
    """A document, or a piece of one.

    Attributes:
        name: name of the file and number of the row or part in the file; unique within a source,
            except that the two documents of a pair share it.
        text: not only white space, unless it is a piece of a longer document.
        ends: False if the document continues in the next item, which has the same name.
    """

    name: str
    text: str
    ends: bool = True


class TextPart(NamedTuple):
    """A text between two separators, or a piece of one.

    Attributes:
        number: from 0, of the part in the file.
        text: of the part or piece.
        ends: False if the part continues in the next item.
    """

    number: int
    text: str
    ends: bool


def parts(texts: Iterable[str], separator: str, longest: int = sys.maxsize) -> Iterator[TextPart]:
    """Cut a stream of text at the separators, and long parts into pieces.

    Args:
        texts: the text in blocks of any size.
        separator: text between two parts.
        longest: characters of white space at the begin of a part that may be kept. Equal pieces
            count once: any number of spaces or line feeds is allowed.

    Yields:
        The parts that are not only white space, with the numbers that they have in
        `"".join(texts).split(separator)`.

    Raises:
        TooLongError: if a part begins with more white space.
    """
    return _without_blank_parts(_all_parts(texts, separator), longest)


def _all_parts(texts: Iterable[str], separator: str) -> Iterator[TextPart]:
    number, rest = 0, ""
    for text in texts:
        *complete, rest = (rest + text).split(separator)
        for part in complete:
            for piece, ends in pieces(part):
                yield TextPart(number, piece, ends)
            number += 1
        # Keep the last characters: they may be the beginning of a separator.
        while len(rest) - len(separator) + 1 > PIECE:
            cut = _cut(rest)
            yield TextPart(number, rest[:cut], False)
            rest = rest[cut:]
    for piece, ends in pieces(rest):
        yield TextPart(number, piece, ends)


def _without_blank_parts(pieces_of_parts: Iterable[TextPart], longest: int) -> Iterator[TextPart]:
    """Leave out parts that are only white space.

    The first blank pieces of a part wait until a later piece has text, or the part ends. Equal ones
    are one text in memory.
    """
    blank: list[TextPart] = []
    kept: dict[str, str] = {}
    size = 0  # characters of the kept texts
    has_text = False  # the current part has had a piece with text
    for part in pieces_of_parts:
        if has_text or (part.text and not part.text.isspace()):
            yield from blank
            yield part
            has_text = not part.ends
        elif not part.ends:
            text = kept.setdefault(part.text, part.text)
            size += len(text) if text is part.text else 0
            if size > longest:
                raise TooLongError(part.number)
            blank.append(part._replace(text=text))
            continue
        if blank:
            blank, kept, size = [], {}, 0


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a document, each with True if it is the last one.

    A piece has at most `PIECE` characters. It ends before the last space that follows a character
    that is not white space, because no tokenizer joins the two. Without such a space it ends
    anywhere.
    """
    begin = 0
    while len(text) - begin > PIECE:
        cut = _cut(text, begin)
        yield text[begin:cut], False
        begin = cut
    yield text[begin:], True


def _cut(text: str, begin: int = 0) -> int:
    """Return the end of a piece that begins at `begin` and does not reach the end of the text."""
    stop = begin + PIECE + 1  # the space itself belongs to the next piece
    while stop > begin + 1:
        start = max(begin, stop - _WINDOW)
        breaks = [match.end() - 1 for match in _BREAK.finditer(text, start, stop)]
        if breaks:
            return breaks[-1]
        # The windows overlap by one character: this one may begin with the space after a break.
        stop = start + 1 if start > begin else begin
    return begin + PIECE


class SourceRow(NamedTuple):
    """The requested fields of a row of a table.

    Attributes:
        number: from 0, of the row in the file.
        where: file and place, the beginning of an error message.
        texts: texts of the requested fields, in the order of the request; None for a missing text.
    """

    number: int
    where: str
    texts: tuple[str | None, ...]


def pair(name: str, source: str, target: str) -> Iterator[Document]:
    """Yield a pair as two documents of one name, the source and then the target."""
    for text in (source, target):
        for piece, ends in pieces(text):
            yield Document(name, piece, ends)


def documents_of_rows(name: str, texts: Iterable[tuple[int, str]]) -> Iterator[Document]:
    """Yield a document for each numbered text, but none for texts of only white space."""
    for number, text in texts:
        if not text or text.isspace():
            continue
        if len(text) <= PIECE:
            yield Document(f"{name}#{number}", text)
        else:
            for piece, ends in pieces(text):
                yield Document(f"{name}#{number}", piece, ends)
