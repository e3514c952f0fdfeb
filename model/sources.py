"""Where text comes from: a registry of sources, each of which yields named documents."""

from __future__ import annotations

import glob
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Document = tuple[str, str]  # name and text

END_OF_TEXT = "<|endoftext|>"
_TEXT_SUFFIXES = (".txt", ".md", ".py")
# `_python_stdlib` says why.
_NOT_LIBRARY_FOLDERS = {
    "__phello__", "__pycache__", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3",
    "site-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
_NOT_LIBRARY_FILES = ("_sysconfigdata", "_distutils_system_mod", "sitecustomize", "usercustomize")


class CorpusError(ValueError):
    """The data cannot be used; one sentence says what, where and what to do."""


class DataConfig(BaseModel):
    """Where the text comes from; by default the standard library's source.

    Attributes:
        source: a text that every machine has.
        files: UTF-8 text files, folders and patterns, instead of a source.
        separator: what stands between documents inside a file.
        validation_fraction: share of the documents that is held out, in (0, 1).

    Raises:
        ValidationError: if both `source` and `files` are given, or both as null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["python-stdlib"] | None = None
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    separator: str = Field(default=END_OF_TEXT, min_length=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, given: Any) -> Any:
        if isinstance(given, dict) and not {"source", "files"} & given.keys():
            return {**given, "source": "python-stdlib"}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.files is None):
            raise ValueError("give exactly one of source and files")
        return self

    @property
    def kind(self) -> str:
        """Name in `SOURCES`."""
        return self.source or "files"


def _library_files() -> Iterator[tuple[str, Path]]:
    """Name and path of each file of `python-stdlib`, in the order of the names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in _NOT_LIBRARY_FOLDERS and "config-" not in name
        )
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(_NOT_LIBRARY_FILES):
                path = Path(folder, name)
                yield path.relative_to(root).as_posix(), path


def _named_files(config: DataConfig) -> Iterator[tuple[str, Path]]:
    """Name and path of each file that `files:` means: paths, folders and patterns.

    A name is the path from the folder, or from what the matches of a pattern have in common, so
    that equal file names in different folders stay apart and moving the whole changes nothing.
    """
    for pattern in config.files or ():
        path = Path(pattern)
        if path.is_dir():
            found = [p for p in path.rglob("*") if p.suffix in _TEXT_SUFFIXES and p.is_file()]
        elif path.exists() or not glob.has_magic(pattern):
            found = [path]
        else:
            found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - absolute patterns
            found = [each for each in found if each.is_file()]
        if not found:
            raise CorpusError(
                f"data.files: {pattern} holds no {', '.join(_TEXT_SUFFIXES)} file; check the path"
            )
        root = Path(os.path.commonpath([each.parent for each in found]))
        for each in sorted(found):
            yield each.relative_to(path if path.is_dir() else root).as_posix(), each


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"data: cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"data: {path} is not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); convert "
            f"it, for instance with iconv"
        ) from error


def _python_stdlib(config: DataConfig) -> Iterator[Document]:
    """The source text of the running interpreter's own standard library, a document per file.

    So that every machine with this Python has the same text, these are left out: installed
    packages; what distributions package separately or not at all (tkinter, idlelib, turtledemo,
    lib2to3, distutils, ensurepip, tests); and what is made or patched for one machine
    (_sysconfigdata, config-*, sitecustomize). Tests and demonstrations are no library code either.
    """
    for name, path in _library_files():
        text = _read(path)
        if text:
            yield name, text


def _files(config: DataConfig) -> Iterator[Document]:
    """Text files, cut into documents at the separator."""
    for name, path in _named_files(config):
        text = _read(path)
        if not text.strip():
            raise CorpusError(f"data: {path} is empty; leave it out or give it some text")
        for number, document in enumerate(text.split(config.separator)):
            if document.strip():
                yield f"{name}#{number}", document


SOURCES: Mapping[str, Callable[[DataConfig], Iterator[Document]]] = {
    "python-stdlib": _python_stdlib,
    "files": _files,
}


def source_bytes(config: DataConfig) -> int:
    """Size of a source in bytes, without reading it.

    Raises:
        CorpusError: if a file is missing.
    """
    files = _library_files() if config.source else _named_files(config)
    try:
        return sum(path.stat().st_size for _, path in files)
    except OSError as error:
        raise CorpusError(f"data: cannot read {error.filename}: {error.strerror}") from error
