"""Streams of one file: decompressed bytes, UTF-8 text, lines, all in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import sys
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from model.errors import CorpusError
from model.sources.limits import TooLongError

# Bytes read at a time.
BLOCK = 2**20

COMPRESSIONS = (".gz", ".zst")
_INSPECTED = 2**13  # bytes of a file, as git inspects


def format_suffix(path: Path) -> str:
    """Return the suffix of the format: `.jsonl` for `a.jsonl` and for `a.jsonl.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def is_compressed(path: Path) -> bool:
    """Return True if the suffix of a file is that of a compression."""
    return path.suffix.lower() in COMPRESSIONS


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed according to its suffix.

    Raises:
        CorpusError: if the file cannot be read or is damaged.
    """
    read = 0
    try:
        with _decompressed(path) as file:
            while block := file.read(BLOCK):
                read += len(block)
                yield block
    # A damaged gzip file raises any of these; decompressors raise OSError without an errno.
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        message = " ".join(str(error).split())
        raise CorpusError(
            f"data: {path} is damaged after {read:,} bytes of decompressed data ({message}); make "
            f"or download it again"
        ) from error


def has_nul(path: Path) -> bool:
    """Return True if a file begins with a NUL byte among others, as binary files and UTF-16 do.

    Raises:
        CorpusError: as `blocks`.
    """
    return b"\0" in next(blocks(path), b"")[:_INSPECTED]


@contextmanager
def _decompressed(path: Path) -> Generator[IO[bytes] | Any]:
    with path.open("rb") as file:
        match path.suffix.lower():
            case ".gz":
                with gzip.open(file) as inside:
                    yield inside
            case ".zst":
                import pyarrow

                with pyarrow.CompressedInputStream(file, "zstd") as inside:
                    yield inside
            case _:
                yield file


def unreadable(path: Path | str, error: OSError) -> CorpusError:
    """Return the error for a file that the operating system cannot read."""
    return CorpusError(
        f"data: cannot read {path}: {error.strerror or error}; check that it is there and that "
        f"you may read it"
    )


def texts(path: Path, errors: str) -> Iterator[str]:
    """Yield the text of a UTF-8 file in blocks, without a byte order mark.

    Args:
        path: the file.
        errors: `strict`, or `replace` to read U+FFFD for bytes that are not UTF-8.

    Raises:
        CorpusError: if the file cannot be read or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    decoded = 0  # bytes
    at_start = True
    for block in _with_end(blocks(path)):
        waiting = len(decoder.getstate()[0])  # bytes of a character that ends in this block
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = decoded - waiting + error.start
            kind = " of the decompressed text" if is_compressed(path) else ""
            raise CorpusError(
                f"data: {path} is not UTF-8 at byte {place}{kind} "
                f"(0x{error.object[error.start]:02x}); convert it, for instance with iconv, or "
                f"set errors: replace"
            ) from error
        decoded += len(block)
        if at_start and text:
            text = text.removeprefix("\ufeff")
            at_start = False
        if text:
            yield text


def _with_end(data: Iterator[bytes]) -> Iterator[bytes]:
    """Append an empty block, which makes the decoder check that no character is incomplete."""
    yield from data
    yield b""


def lines(blocks_of_text: Iterable[str], longest: int = sys.maxsize) -> Iterator[str]:
    """Yield the lines of a stream of text, with their ends; only the line feed ends a line.

    Raises:
        TooLongError: in place of a line with more than `longest` characters before its end.
    """
    unfinished: list[str] = []
    number = size = 0  # of the unfinished line
    for text in blocks_of_text:
        first, *more = text.split("\n")
        unfinished.append(first)
        size += len(first)
        if size > longest:
            raise TooLongError(number)
        if len(text) > longest:
            for i, line in enumerate(more, number + 1):
                if len(line) > longest:
                    raise TooLongError(i)
        if more:
            yield "".join(unfinished) + "\n"
            for line in more[:-1]:
                yield line + "\n"
            number += len(more)
            unfinished, size = [more[-1]], len(more[-1])
    if last := "".join(unfinished):
        yield last


def no_column(
    where: str, column: str, columns: Collection[str], option: str = "column"
) -> CorpusError:
    """Return the error for a table without the column that an option of the data names."""
    return CorpusError(
        f"{where} has no column {column!r}, only {listed(columns)}; set data.{option}"
    )


def listed(names: Collection[str]) -> str:
    """Return the first few names, quoted."""
    most = 8
    first = ", ".join(map(repr, list(names)[:most])) or "none"
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
