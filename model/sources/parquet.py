"""Reader of text columns of a Parquet file, one batch of rows at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from model.errors import CorpusError
from model.sources.documents import SourceRow
from model.sources.limits import too_long
from model.sources.streams import blocks, is_compressed, no_column, unreadable
from model.spec.data import DataConfig

_BATCH_BYTES = 2**22  # of text decoded at a time, about
_MOST_ROWS = 2**12
# A compressed file is decompressed to disk if that takes at most so many times its size, and leaves
# so many bytes free.
_LARGEST_RATIO = 100
_FREE_BYTES = 2**30
_CHECKED_BYTES = 2**26  # written between two checks
# With a buffer, the column of a row group is read in parts instead of at once.
_OPTIONS: dict[str, Any] = {
    "buffer_size": 2**20, "pre_buffer": False, "page_checksum_verification": True,
}  # fmt: skip


def parquet_rows(path: Path, columns: Mapping[str, str], config: DataConfig) -> Iterator[SourceRow]:
    """Yield the rows of a file.

    Args:
        path: a .parquet file, or a compressed .parquet file.
        columns: option of the data → name of a column of strings, or of bytes that hold UTF-8.
        config: the options `errors` and `max_row_characters`.

    Raises:
        CorpusError: if the file cannot be read, is damaged, has no such column, or a text is too
            large.
    """
    import pyarrow

    errors, longest = config.errors, config.longest_row
    with _damage_named(path), _seekable(path) as file:
        number = 0
        for batch in _batches(file, path, columns):
            # As bytes, so that `errors` decides about bytes that are not UTF-8.
            values = [
                batch.column(column).cast(pyarrow.large_binary()).to_pylist()
                for column in columns.values()
            ]
            for row in zip(*values, strict=True):
                where = f"data: {path} row {number + 1}"
                named = zip(row, columns.values(), strict=True)
                yield SourceRow(
                    number, where, tuple(_text(v, where, c, errors, longest) for v, c in named)
                )
                number += 1


def column_bytes(path: Path, columns: Collection[str]) -> int:
    """Return the bytes of some columns as the metadata of a file has them, about their text.

    Raises:
        CorpusError: if the file cannot be read or is damaged.
    """
    from pyarrow import parquet

    with _damage_named(path):
        metadata = parquet.read_metadata(path)
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        chunks = [group.column(i) for group in groups for i in range(metadata.num_columns)]
        return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in columns)


def text_columns(path: Path) -> list[str]:
    """Return the names of the columns of a file that hold text.

    Raises:
        CorpusError: if the file cannot be read or is damaged.
    """
    from pyarrow import parquet

    with _damage_named(path):
        return [column.name for column in parquet.read_schema(path) if _is_text(column.type)]


def _is_text(kind: Any) -> bool:
    """Return True for an arrow type of strings, or of bytes, also as a dictionary."""
    import pyarrow

    inner = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return str(inner).removeprefix("large_").removesuffix("_view") in ("string", "binary")


@contextmanager
def _damage_named(path: Path) -> Generator[None]:
    """Turn errors of pyarrow into errors of the data."""
    import pyarrow

    try:
        yield
    except CorpusError:
        raise
    # ValueError: UnicodeDecodeError, because pyarrow decodes the names of columns
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        message = " ".join(str(error).split())
        raise CorpusError(
            f"data: {path} is not a Parquet file or is damaged ({message}); make or download it "
            f"again"
        ) from error


@contextmanager
def _seekable(path: Path) -> Generator[IO[bytes]]:
    """Open the file; decompress a compressed one to disk, because Parquet needs seeks."""
    if not is_compressed(path):
        with path.open("rb") as file:
            yield file
        return
    packed = path.stat().st_size
    with tempfile.TemporaryFile() as copy:
        written = checked = 0
        for block in blocks(path):
            written += copy.write(block)
            if written - checked < _CHECKED_BYTES:
                continue
            checked = written
            if written > _LARGEST_RATIO * packed:
                raise CorpusError(
                    f"data: {path} is more than {_LARGEST_RATIO} times as large when it is "
                    f"decompressed; decompress it yourself, and name the .parquet file"
                )
            if shutil.disk_usage(tempfile.gettempdir()).free < _FREE_BYTES:
                raise CorpusError(
                    f"data: {path} is decompressed to {tempfile.gettempdir()}, where no space is "
                    f"left; decompress it yourself, or set TMPDIR to a folder with more space"
                )
        copy.seek(0)
        yield copy


def _batches(file: IO[bytes], path: Path, columns: Mapping[str, str]) -> Iterator[Any]:
    from pyarrow import parquet

    table = parquet.ParquetFile(file, **_OPTIONS)
    schema = table.schema_arrow
    for option, column in columns.items():
        if column not in schema.names:
            raise no_column(f"data: {path}", column, schema.names, option)
        kind = schema.field(column).type
        if not _is_text(kind):
            raise CorpusError(
                f"data: {path}: column {column!r} holds {kind} and not text; set data.{option}"
            )
    names = list(columns.values())
    for number in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(number)
        chunks = [
            c for c in map(group.column, range(group.num_columns)) if c.path_in_schema in names
        ]
        mean = sum(c.total_uncompressed_size for c in chunks) // max(1, group.num_rows)
        rows = min(_MOST_ROWS, max(1, _BATCH_BYTES // max(1, mean)))
        yield from table.iter_batches(
            batch_size=rows, row_groups=[number], columns=names, use_threads=False
        )


def _text(value: bytes | None, where: str, column: str, errors: str, longest: int) -> str | None:
    try:
        text = None if value is None else value.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{where}: column {column!r} is not UTF-8 at byte {error.start} "
            f"(0x{error.object[error.start]:02x}); correct it, or set errors: replace"
        ) from error
    if text and len(text) > longest:
        raise too_long(f"{where}: column {column!r}", longest)
    return text
