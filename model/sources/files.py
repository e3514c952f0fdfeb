"""Which files are meant: those of the standard library, or what `files:` names."""

from __future__ import annotations

import glob
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from model.errors import CorpusError
from model.sources.formats import FORMATS
from model.sources.streams import COMPRESSIONS, format_suffix, unreadable

# `library_files` says why.
_NOT_LIBRARY_FOLDERS = {
    "__phello__", "__pycache__", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3",
    "site-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
_NOT_LIBRARY_FILES = ("_sysconfigdata", "_distutils_system_mod", "sitecustomize", "usercustomize")


class SourceFile(NamedTuple):
    """A file of a source.

    Attributes:
        name: unique within the source; moving all files together does not change it.
        path: where it lies.
    """

    name: str
    path: Path


def library_files() -> list[SourceFile]:
    """The source files of the running interpreter's own standard library.

    So that every machine with this Python has the same text, these are left out: installed
    packages; what distributions package separately or not at all (tkinter, idlelib, turtledemo,
    lib2to3, distutils, ensurepip, tests); and what is made or patched for one machine
    (_sysconfigdata, config-*, sitecustomize). Tests and demonstrations are no library code either.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in _NOT_LIBRARY_FOLDERS and "config-" not in name
        )
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(_NOT_LIBRARY_FILES):
                path = Path(folder, name)
                found.append(SourceFile(path.relative_to(root).as_posix(), path))
    return found


def named_files(patterns: Sequence[str]) -> list[SourceFile]:
    """The files that paths, folders and patterns mean, in the order of these and of the names.

    A name is the path from the folder, or from what the matches of a pattern have in common, so
    that equal file names in different folders stay apart and moving the whole changes nothing.

    Raises:
        CorpusError: if a file is missing or has no format that is known, or a folder or pattern
            holds none.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        try:
            matches = list(_matches(pattern))
        except OSError as error:
            raise unreadable(error.filename or pattern, error) from error
        for file in matches:
            found.setdefault(_place(file.path), file)
    return _told_apart(found)


def is_asked_for(file: SourceFile, patterns: Sequence[str]) -> bool:
    """Whether the user named this very file, and not a folder or pattern that holds it."""
    return _place(file.path) in map(_place, patterns)


def _place(path: Path | str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links


def _matches(pattern: str) -> Iterator[SourceFile]:
    path = Path(pattern)
    if path.is_dir():
        found = [each for each in _inside(path) if _has_format(each) and each.is_file()]
        root = path
    elif path.exists() or not glob.has_magic(pattern):
        path.stat()  # that it is missing is to be said first
        if not _has_format(path):
            raise CorpusError(
                f"data.files: {path} has no suffix that is known; it must be one of "
                f"{_known_formats()}"
            )
        yield SourceFile(path.name, path)
        return
    else:
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns
        found = [each for each in map(Path, names) if _has_format(each) and each.is_file()]
        root = Path(os.path.commonpath([each.parent for each in found])) if found else path
    if not found:
        raise CorpusError(
            f"data.files: {pattern} holds no {', '.join(FORMATS)} file; check the path"
        )
    for each in sorted(found):
        yield SourceFile(each.relative_to(root).as_posix(), each)


def _inside(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, none of which may be closed to the reader."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)


def _has_format(path: Path) -> bool:
    return format_suffix(path) in FORMATS


def _known_formats() -> str:
    return f"{', '.join(FORMATS)}, or one of these with {' or '.join(COMPRESSIONS)}"


def _told_apart(found: dict[str, SourceFile]) -> list[SourceFile]:
    """Files of equal names get one more folder in front, until the names differ."""
    names = {path: file.name for path, file in found.items()}
    while len(set(names.values())) < len(names):
        count = Counter(names.values())
        for path, name in names.items():
            if count[name] > 1:
                names[path] = "/".join(Path(path).parts[-name.count("/") - 2 :])
    return [file._replace(name=names[path]) for path, file in found.items()]
