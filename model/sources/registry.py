"""Registry of sources, each of which yields a stream of documents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from model.errors import CorpusError
from model.sources.chat_template import render
from model.sources.docstrings import documents_of_pairs
from model.sources.documents import Document, pieces
from model.sources.files import SourceFile, is_named, library_files, named_files
from model.sources.formats import (
    TABLES,
    TEXT_FORMATS,
    describe_emptiness,
    fields_of,
    read,
    rows_of,
)
from model.sources.hub import hub_documents
from model.sources.parquet import column_bytes
from model.sources.streams import format_suffix, is_compressed, texts, unreadable
from model.spec.data import DataConfig

_MOST_CHECKED = 1000  # tables


def documents(config: DataConfig) -> Iterator[Document]:
    """Yield the documents of a source, long ones in pieces; memory does not grow with the source.

    Raises:
        CorpusError: while reading, if the source cannot be read or holds no text.
    """
    return SOURCES[config.kind](config)


def _python_stdlib(config: DataConfig) -> Iterator[Document]:
    """Yield the source files of the running interpreter's own standard library, as documents."""
    for file in library_files():
        for text, ends in pieces("".join(texts(file.path, config.errors))):
            if text:
                yield Document(file.name, text, ends)


def _files(config: DataConfig) -> Iterator[Document]:
    """Yield the documents of files: parts of texts, rows of tables, pairs of tables."""
    patterns = config.files or ()
    files = source_files(config)
    is_empty = True
    for file in files:
        document = None
        for document in read(file.name, file.path, config):
            is_empty = False
            yield document
        if document is None and is_named(file, patterns):
            raise CorpusError(
                f"data: {file.path} is empty: {describe_emptiness(file.path, config)}; leave it "
                f"out or add text to it"
            )
    if is_empty:
        raise CorpusError(
            f"data: {files[0].path} is empty and so are all {len(files)} files of data.files; give "
            f"files with some text"
        )


SOURCES: Mapping[str, Callable[[DataConfig], Iterator[Document]]] = {
    "python-stdlib": _python_stdlib,
    "python-docstrings": documents_of_pairs,
    "files": _files,
    "hub": hub_documents,
}


def source_files(config: DataConfig) -> list[SourceFile]:
    """Return the files of a source, in the order of reading; none for a data set of the hub.

    Raises:
        CorpusError: if a file is missing, is of an unknown format, should hold pairs but is not a
            table, or examples but is no .jsonl.
    """
    return [file for file, _ in _sized(config)]


def _sized(config: DataConfig) -> list[tuple[SourceFile, int]]:
    """Return the files of a source with their sizes; raises as `source_files`."""
    if config.hub:
        return []
    if not config.files:
        return list(_sized_library(tuple(library_files())))
    sized = [(file, _size(file)) for file in named_files(config.files)]
    for file, _ in sized:
        if config.pairs and format_suffix(file.path) in TEXT_FORMATS:
            raise CorpusError(
                f"data.files: {file.path} is not a table and so has no pairs; name .jsonl, .csv, "
                f".tsv and .parquet files only, or leave out pairs: true"
            )
        if config.examples and format_suffix(file.path) != ".jsonl":
            raise CorpusError(
                f"data.files: {file.path} is no .jsonl file, and only these have examples; write "
                f"it as .jsonl, or leave out examples: true"
            )
    return sized


@lru_cache(maxsize=1)  # as the list of them: they stay while this process lives
def _sized_library(files: tuple[SourceFile, ...]) -> tuple[tuple[SourceFile, int], ...]:
    return tuple((file, _size(file)) for file in files)


def text_files(config: DataConfig) -> Iterator[SourceFile]:
    """Yield the plain texts among the files that `files:` names.

    Raises:
        CorpusError: as `source_files`.
    """
    if config.files:
        yield from (f for f in source_files(config) if format_suffix(f.path) in TEXT_FORMATS)


def source_bytes(config: DataConfig) -> int | None:
    """Return the size of a source in bytes, an upper bound of its text, without reading it.

    Returns:
        Bytes; None if only reading gives them: data sets, compressed files and Parquet files.

    Raises:
        CorpusError: if a file is missing.
    """
    if config.hub:
        return None
    files = _sized(config)
    if any(is_compressed(f.path) or format_suffix(f.path) == ".parquet" for f, _ in files):
        return None
    return sum(size for _, size in files)


def text_bytes(config: DataConfig) -> int | None:
    """Return about how many bytes of text a source has, without reading the text.

    Of Parquet files the metadata says so. Other files count with all that is beside their text.

    Returns:
        Bytes; None if only reading gives them: data sets of the hub and compressed files.

    Raises:
        CorpusError: if a file is missing, or a Parquet file is damaged.
    """
    if config.hub:
        return None
    files = _sized(config)
    if any(is_compressed(file.path) for file, _ in files):
        return None
    return sum(
        column_bytes(file.path, fields_of(file.path, config).values())
        if format_suffix(file.path) == ".parquet"
        else size
        for file, size in files
    )


def check_tables(config: DataConfig) -> None:
    """Read the first row of each table, so that a wrong field or column is noticed early.

    A first example is written by its chat template.

    Raises:
        CorpusError: if a first row cannot be read, or written.
    """
    tables = (f.path for f in source_files(config) if format_suffix(f.path) in TABLES)
    for path in itertools.islice(tables, _MOST_CHECKED):
        # only decompressing all of it would show the columns of a compressed Parquet file
        if not (is_compressed(path) and format_suffix(path) == ".parquet"):
            row = next(rows_of(path, config), None)
            if row is not None and config.chat is not None:
                render(row.texts[0] or "", config.chat, row.where)


def _size(file: SourceFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError as error:
        raise unreadable(file.path, error) from error
