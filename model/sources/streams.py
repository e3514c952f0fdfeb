"""Read one file as a stream: decompressed bytes, UTF-8 text, lines; memory stays bounded."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from model.errors import CorpusError

# Bytes read at a time.
BLOCK = 2**20

COMPRESSIONS = (".gz", ".zst")


def format_suffix(path: Path) -> str:
    """The suffix that tells the format: `.jsonl` of `a.jsonl` and of `a.jsonl.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def is_compressed(path: Path) -> bool:
    """Whether the name says that the file is compressed."""
    return path.suffix.lower() in COMPRESSIONS


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed if its name says so, a block at a time.

    Raises:
        CorpusError: if the file cannot be read or is damaged.
    """
    read = 0
    try:
        with _decompressed(path) as file:
            while block := file.read(BLOCK):
                read += len(block)
                yield block
    # A damaged gzip file raises any of these; OSError without a number comes from decompressors.
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        message = " ".join(str(error).split())
        raise CorpusError(
            f"data: {path} is damaged after {read:,} bytes of decompressed data ({message}); make "
            f"or download it again"
        ) from error


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
    """What to say of a file that the operating system does not give."""
    return CorpusError(
        f"data: cannot read {path}: {error.strerror or error}; check that it is there and that "
        f"you may read it"
    )


def texts(path: Path, errors: str) -> Iterator[str]:
    """The text of a UTF-8 file, a block at a time, without a byte order mark.

    Args:
        path: the file.
        errors: `strict`, or `replace` to read U+FFFD where bytes are not UTF-8.

    Raises:
        CorpusError: if the file cannot be read or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    decoded = 0  # bytes
    at_start = True
    for block in _and_end(blocks(path)):
        waiting = len(decoder.getstate()[0])  # of a character whose last bytes are in this block
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


def _and_end(found: Iterator[bytes]) -> Iterator[bytes]:
    yield from found
    yield b""


def lines(blocks_of_text: Iterable[str]) -> Iterator[str]:
    """The lines of a stream of text, with their ends; only the line feed ends one."""
    begun: list[str] = []
    for text in blocks_of_text:
        first, *more = text.split("\n")
        begun.append(first)
        if more:
            yield "".join(begun) + "\n"
            for line in more[:-1]:
                yield line + "\n"
            begun = [more[-1]]
    if last := "".join(begun):
        yield last


def no_column(
    where: str, column: str, columns: Collection[str], option: str = "column"
) -> CorpusError:
    """What to say of a table that lacks the column that an option of the data names."""
    return CorpusError(
        f"{where} has no column {column!r}, only {listed(columns)}; set data.{option}"
    )


def listed(names: Collection[str]) -> str:
    """The first few names, quoted."""
    most = 8
    first = ", ".join(map(repr, list(names)[:most])) or "none"
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
