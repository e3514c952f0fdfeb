"""Readers of file formats: one file as a stream of documents, and a registry by suffix.

The documents of a text are its parts, those of a table its rows; parts and rows without text (null,
empty, white space) are left out. With pairs, each row is two documents, and both must have text.
Memory is bounded by the longest row, not by the file.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from model.errors import CorpusError
from model.sources import documents
from model.sources.documents import Document, SourceRow
from model.sources.examples import example_text
from model.sources.limits import RAISE, TooLongError, too_long
from model.sources.parquet import parquet_rows
from model.sources.streams import BLOCK, format_suffix, lines, listed, no_column, texts
from model.spec.data import DataConfig

# Option of `DataConfig` → name of the field or column that the option requests.
Fields = Mapping[str, str]

# A value of JSON takes up to a hundred times the memory of its spelling: a row of the longest size
# may hold one for each so many characters.
_VALUE_CHARACTERS = 32
_STRING_OR_MARK = re.compile(r'"[^"]*"|([,\[{])')


def read(name: str, path: Path, config: DataConfig) -> Iterator[Document]:
    """Yield the documents of one file.

    Args:
        name: name of the file; the name of a document adds the number of its row or part.
        path: path of the file; the suffix gives format and compression.
        config: the options.

    Raises:
        CorpusError: if the file cannot be read, or is not of the format of its suffix.
    """
    suffix = format_suffix(path)
    return (_text if suffix == NO_SUFFIX else FORMATS[suffix])(name, path, config)


def describe_emptiness(path: Path, config: DataConfig) -> str:
    """Explain why a file has no document."""
    suffix = format_suffix(path)
    if suffix in TEXT_FORMATS:
        return f"there are no documents, only separators ({config.separator!r}) and white space"
    if config.pairs or config.examples:
        return "it has no row"
    name = f"field {config.field!r}" if suffix == ".jsonl" else f"column {config.column!r}"
    return f"no row has text in its {name}"


def _text(name: str, path: Path, config: DataConfig) -> Iterator[Document]:
    blocks = texts(path, config.errors)
    try:
        for number, text, ends in documents.parts(blocks, config.separator, config.longest_row):
            yield Document(f"{name}#{number}", text, ends)
    except TooLongError as error:
        raise CorpusError(
            f"data: {path}: document {error.number + 1} begins with more than "
            f"{config.longest_row:,} characters of white space; remove them, or {RAISE}"
        ) from error


def rows_of(path: Path, config: DataConfig) -> Iterator[SourceRow]:
    """Yield the rows of a table."""
    _, rows = TABLES[format_suffix(path)]
    return rows(path, fields_of(path, config), config)


def fields_of(path: Path, config: DataConfig) -> Fields:
    """Return the fields to read of each row: source and target of pairs, or that of one option."""
    option, _ = TABLES[format_suffix(path)]
    options = ("source_field", "target_field") if config.pairs else (option,)
    return {each: getattr(config, each) for each in options}


def _table(name: str, path: Path, config: DataConfig) -> Iterator[Document]:
    rows = rows_of(path, config)
    if config.pairs:
        return _pairs(name, rows, config)
    if config.examples:  # never in pieces: a piece of JSON is no example
        return (Document(f"{name}#{row.number}", row.texts[0] or "") for row in rows)
    return documents.documents_of_rows(name, ((row.number, row.texts[0] or "") for row in rows))


def _pairs(name: str, rows: Iterator[SourceRow], config: DataConfig) -> Iterator[Document]:
    for number, where, (source, target) in rows:
        if not source or source.isspace():
            raise _no_text(where, "source", config.source_field)
        if not target or target.isspace():
            raise _no_text(where, "target", config.target_field)
        yield from documents.pair(f"{name}#{number}", source, target)


def _no_text(where: str, side: str, field: str) -> CorpusError:
    return CorpusError(
        f"{where} has no text in {field!r}, which is the {side} of a pair; add a text, or remove "
        f"the row"
    )


def _jsonl_rows(path: Path, fields: Fields, config: DataConfig) -> Iterator[SourceRow]:
    longest, errors = config.longest_row, config.errors
    try:
        for number, line in enumerate(lines(texts(path, errors), longest)):
            if line.isspace():
                continue
            where = f"data: {path} line {number + 1}"
            row = _object(line, where, longest // _VALUE_CHARACTERS)
            values: tuple[str | None, ...] = (
                (example_text(row, where),)
                if config.examples
                else tuple(_value(row, option, field, where) for option, field in fields.items())
            )
            # JSON can escape half a surrogate pair, which is not a character.
            if "\\ud" in line or "\\uD" in line:
                values = tuple(
                    text and _complete_characters(text, where, errors) for text in values
                )
            yield SourceRow(number, where, values)
    except TooLongError as error:
        raise too_long(f"data: {path} line {error.number + 1}", longest) from error


def _object(line: str, where: str, most_values: int) -> dict[str, Any]:
    """Parse a line of a JSONL file."""
    if len(line) > most_values and _has_more_values(line, most_values):
        raise CorpusError(
            f"{where} holds more than {most_values:,} values; leave out what is not text, or "
            f"{RAISE}"
        )
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at column {error.colno}"
        raise CorpusError(
            f"{where} is not JSON ({reason}); a .jsonl file has one object on each line"
        ) from error
    if not isinstance(row, dict):
        raise CorpusError(f"{where} is not an object; each must be one with a field of text")
    return row


def _has_more_values(line: str, limit: int) -> bool:
    """Return True if a line of JSON has more values than a limit, without parsing it."""
    if sum(map(line.count, ",[{")) <= limit:
        return False
    # Commas and brackets inside of strings do not count.
    without_escapes = line.replace("\\\\", "").replace('\\"', "")
    marks = (mark for mark in _STRING_OR_MARK.finditer(without_escapes) if mark.lastindex)
    return next(itertools.islice(marks, limit, None), None) is not None


def _value(row: dict[str, Any], option: str, field: str, where: str) -> str | None:
    if field not in row:
        raise CorpusError(f"{where} has no field {field!r}, only {listed(row)}; set data.{option}")
    value = row[field]
    if value is not None and not isinstance(value, str):
        raise CorpusError(
            f"{where}: field {field!r} is not a text but {type(value).__name__}; set data.{option}"
        )
    return value


def _complete_characters(text: str, where: str, errors: str) -> str:
    """Raise CorpusError for half a surrogate pair, or replace it by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "replace":
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        raise CorpusError(
            f"{where} holds half a character (\\u{ord(text[error.start]):04x}); correct it, or "
            f"set errors: replace"
        ) from error
    return text


class _RowSize:
    """Counts the characters of a row of a table, which may have several lines, block by block.

    Attributes:
        characters: read since the last complete row; the rest of the block of its end not counted.
    """

    def __init__(self) -> None:
        self.characters = 0

    def count(self, blocks: Iterable[str], longest: int) -> Iterator[str]:
        """Pass blocks on; raise TooLongError if all characters since the last row are too many."""
        for block in blocks:
            self.characters += len(block)
            if self.characters > longest + 2 * BLOCK:
                raise TooLongError(0)
            yield block


def _csv_rows(
    path: Path, fields: Fields, config: DataConfig, delimiter: str
) -> Iterator[SourceRow]:
    csv.field_size_limit(sys.maxsize)
    size, longest = _RowSize(), config.longest_row
    blocks = size.count(texts(path, config.errors), longest)
    # Strict, because otherwise an unclosed quote silently swallows the rest of the file.
    reader = csv.reader(lines(blocks, longest), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        size.characters = 0
        if header is None:
            return
        for option, column in fields.items():
            if column not in header:
                raise no_column(f"data: {path}", column, header, option)
        places = [header.index(column) for column in fields.values()]
        last = max(places)
        for number, row in enumerate(reader):
            size.characters = 0
            where = f"data: {path} line {reader.line_num}"
            if len(row) > last:
                yield SourceRow(number, where, tuple(row[place] for place in places))
            elif row:
                raise CorpusError(
                    f"{where} has {len(row)} fields, but column {header[last]!r} is number "
                    f"{last + 1}; correct the line"
                )
    except TooLongError as error:
        raise too_long(f"data: {path} line {reader.line_num + 1}: a row", longest) from error
    except csv.Error as error:
        raise CorpusError(
            f"data: {path} line {reader.line_num} cannot be read ({error}); correct it, or save "
            f"the table again"
        ) from error


# Suffix of a table → the option of the data that names the column, and the reader of the rows.
TABLES: Mapping[str, tuple[str, Callable[[Path, Fields, DataConfig], Iterator[SourceRow]]]] = {
    ".jsonl": ("field", _jsonl_rows),
    ".csv": ("column", partial(_csv_rows, delimiter=",")),
    ".tsv": ("column", partial(_csv_rows, delimiter="\t")),
    ".parquet": ("column", parquet_rows),
}
# A file without a suffix is a text if the user names the file itself; in folders it is left out.
NO_SUFFIX = ""
_TEXT_SUFFIXES = (".txt", ".md", ".py")
TEXT_FORMATS = (*_TEXT_SUFFIXES, NO_SUFFIX)
FORMATS: Mapping[str, Callable[[str, Path, DataConfig], Iterator[Document]]] = {
    **dict.fromkeys(_TEXT_SUFFIXES, _text),
    **dict.fromkeys(TABLES, _table),
}
