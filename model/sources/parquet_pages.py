"""Sizes of the pages of a Parquet column, read from the headers of the pages.

A page is decompressed at once and the values of a batch are decoded at once, so that the headers
must be seen before. Source: github.com/apache/parquet-format, parquet.thrift; the headers are in
the compact protocol of Thrift.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np

_DICTIONARY_PAGE = 2
_DATA_HEADERS = (5, 7, 8)  # fields of a page header: data page, dictionary page, data page v2
_WINDOW = 2**9  # bytes read at a time: a header rarely has more
_DEEPEST = 8
# Encodings that store lengths, and the second one prefixes, which are decoded for a complete page.
_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY = 6, 7
_DELTAS = (_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY)
_MOST_DELTA_VALUES = 2**24


class Page(NamedTuple):
    """A page of a column.

    Attributes:
        is_dictionary: True if it holds the values that other pages refer to.
        num_values: number of values; in a column that is not nested, rows.
        size: bytes after decompression.
        encoding: number of its encoding.
    """

    is_dictionary: bool
    num_values: int
    size: int
    encoding: int


def pages(file: IO[bytes], chunk: Any) -> Iterator[Page]:
    """Yield the pages of a column of a row group.

    Args:
        file: a Parquet file.
        chunk: pyarrow's metadata of the column.

    Raises:
        ValueError: if a header is damaged.
        OSError: if the file cannot be read.
    """
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    place, end = start, start + chunk.total_compressed_size
    while place < end:
        reader = _Compact(file, place)
        header = reader.struct()
        structs = (header.get(i) for i in _DATA_HEADERS)
        data: dict[int, Any] = next((each for each in structs if isinstance(each, dict)), {})
        kind, size, stored = (_number(header, field) for field in (1, 2, 3))
        encoding = _number(data, 4 if 8 in header else 2, 0)
        yield Page(kind == _DICTIONARY_PAGE, _number(data, 1, 0), size, encoding)
        place = reader.place + stored


def _number(fields: dict[int, Any], field: int, default: int | None = None) -> int:
    """Return a field that must be a number from 0 on."""
    value = fields.get(field, default)
    if not isinstance(value, int) or value < 0:
        raise ValueError("the header of a page is damaged")
    return value


class PageSizes:
    """Sizes of the pages of a column of a row group.

    Attributes:
        dictionary: bytes of its dictionary; 0 without one.
        longest_prefix: bytes that a value may repeat of the one before it.
        largest: bytes of its largest page.
    """

    def __init__(self, column: Iterable[Page]) -> None:
        self.dictionary = self.longest_prefix = self.largest = 0
        self._rows, self._sizes = array("q"), array("q")
        for page in column:
            self.largest = max(self.largest, page.size)
            if page.is_dictionary:
                self.dictionary = max(self.dictionary, page.size)
                continue
            if page.encoding in _DELTAS and page.num_values > _MOST_DELTA_VALUES:
                raise ValueError(f"a page has {page.num_values:,} values")
            self._rows.append(page.num_values)
            self._sizes.append(page.size)
            if page.encoding == _DELTA_BYTE_ARRAY:
                self.longest_prefix = max(self.longest_prefix, page.size)

    @classmethod
    def of(cls, file: IO[bytes], chunk: Any) -> PageSizes:
        """Read the headers of the pages; raise as `pages`."""
        return cls(pages(file, chunk))

    def batch_rows(self, rows: int, most_bytes: int) -> int:
        """Return how many rows to decode at once.

        Args:
            rows: most rows.
            most_bytes: of all pages that a batch may touch, the largest page not counted.

        Returns:
            `rows`, or fewer if some batch could be too large; at least 1.
        """
        sizes = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._sizes, dtype=np.int64)])
        ends = np.cumsum(self._rows, dtype=np.int64)
        while rows > 1:
            # A batch that begins with the last row of page i touches no page after `last[i]`.
            last = np.searchsorted(ends, ends + rows - 1)
            touched = sizes[np.minimum(last + 1, len(ends))] - sizes[:-1]
            if touched.max(initial=0) <= most_bytes + self.largest:
                break
            rows //= 2
        return max(1, rows)


class _Compact:
    """Reads one struct of Thrift's compact protocol; texts are skipped.

    Attributes:
        place: in the file, of the next byte.
    """

    def __init__(self, file: IO[bytes], place: int) -> None:
        self.place = place
        self._file = file
        self._begin, self._data = place, b""

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a struct by number: integers and structs; others are None."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("the header of a page is damaged")
        match kind:
            case 1 | 2:  # the type is the value
                return None
            case 3:
                self.place += 1
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                self.place += 8
            case 8:
                size = self._varint()
                self.place += size
            case 12:
                return self.struct(depth + 1)
            case _:  # no header of a page has lists or maps
                raise ValueError("the header of a page is damaged")
        return None

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while shift < 64:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise ValueError("the header of a page is damaged")

    def _byte(self) -> int:
        at = self.place - self._begin
        if at >= len(self._data):
            self._file.seek(self.place)
            self._begin, self._data, at = self.place, self._file.read(_WINDOW), 0
            if not self._data:
                raise ValueError("the file ends in the header of a page")
        self.place += 1
        return self._data[at]
