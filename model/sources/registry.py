"""Where text comes from: a registry of sources, each of which yields a stream of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from model.errors import CorpusError
from model.sources.docstrings import documents_of_pairs
from model.sources.documents import Document, pieces
from model.sources.files import SourceFile, is_asked_for, library_files, named_files
from model.sources.formats import TEXT_FORMATS, describe_emptiness, read
from model.sources.hub import hub_documents
from model.sources.streams import format_suffix, is_compressed, texts, unreadable
from model.spec.data import DataConfig


def documents(config: DataConfig) -> Iterator[Document]:
    """The documents of a source, a long one in pieces; memory does not grow with the source.

    Raises:
        CorpusError: if the source cannot be read or holds no text; while it is being read.
    """
    return SOURCES[config.kind](config)


def _python_stdlib(config: DataConfig) -> Iterator[Document]:
    """The source text of the running interpreter's own standard library, a document per file."""
    for file in library_files():
        for text, ends in pieces("".join(texts(file.path, config.errors))):
            if text:
                yield Document(file.name, text, ends)


def _files(config: DataConfig) -> Iterator[Document]:
    """What the files hold: parts of texts, rows of tables, pairs of tables."""
    patterns = config.files or ()
    files = source_files(config)
    is_empty = True
    for file in files:
        document = None
        for document in read(file.name, file.path, config):
            is_empty = False
            yield document
        if document is None and is_asked_for(file, patterns):
            raise CorpusError(
                f"data: {file.path} is empty: {describe_emptiness(file.path, config)}; leave it "
                f"out or give it some text"
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
    """The files that a source reads, in that order; none for a data set of the hub.

    Raises:
        CorpusError: if one is missing, has no format that is known, or should hold pairs and is
            no table.
    """
    if config.hub:
        return []
    found = named_files(config.files) if config.files else library_files()
    for file in found:
        _size(file)
        if config.files and config.pairs and format_suffix(file.path) in TEXT_FORMATS:
            raise CorpusError(
                f"data.files: {file.path} is no table and so has no pairs; name .jsonl, .csv, .tsv "
                f"and .parquet files only, or leave out pairs: true"
            )
    return found


def source_bytes(config: DataConfig) -> int | None:
    """Size of a source in bytes, the most that its text can have, without reading it.

    Returns:
        None where only reading can tell: data sets, compressed files and tables.

    Raises:
        CorpusError: if a file is missing.
    """
    if config.hub:
        return None
    files = source_files(config)
    if any(is_compressed(f.path) or format_suffix(f.path) == ".parquet" for f in files):
        return None
    return sum(map(_size, files))


def _size(file: SourceFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError as error:
        raise unreadable(file.path, error) from error
