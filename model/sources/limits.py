"""The longest row of a table, or white space before a text, that is read."""

from __future__ import annotations

from model.errors import CorpusError

RAISE = "raise data.max_row_characters (--max-row-characters)"


class TooLongError(Exception):
    """A line of a text, or the white space before a part of it, is longer than allowed.

    Args:
        number: of the line or part, from 0.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def too_long(where: str, longest: int) -> CorpusError:
    """Return the error for a row that is longer than allowed.

    Args:
        where: file and row, the beginning of the message.
        longest: characters.
    """
    return CorpusError(f"{where} has more than {longest:,} characters; split the row, or {RAISE}")
