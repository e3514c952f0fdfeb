"""Files of a source: those of the standard library, or those that `files:` names."""

from __future__ import annotations

import glob
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from model.errors import CorpusError
from model.sources.formats import FORMATS, NO_SUFFIX
from model.sources.streams import COMPRESSIONS, format_suffix, has_nul, unreadable

# The docstring of `library_files` says why.
_NOT_LIBRARY_FOLDERS = {
    "__phello__", "__pycache__", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3",
    "site-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
# Suffix of a common format that is not read → how to convert a file, named by its stem.
_CONVERSIONS = {
    ".json": "a .jsonl file with one object on each line is: rename it if it is one, or convert a "
    'list with python3 -c "import json; [print(json.dumps(row)) for row in '
    "json.load(open('{0}.json'))]\" > {0}.jsonl",
    ".html": "convert it to text, for instance with pandoc {0}.html -t plain -o {0}.txt",
    ".htm": "convert it to text, for instance with pandoc {0}.htm -t plain -o {0}.txt",
    ".pdf": "convert it to text, for instance with pdftotext {0}.pdf {0}.txt",
}
_NOT_LIBRARY_FILES = ("_sysconfigdata", "_distutils_system_mod", "sitecustomize", "usercustomize")


class SourceFile(NamedTuple):
    """A file of a source.

    Attributes:
        name: unique within the source; it does not change if all files are moved together.
        path: path of the file.
    """

    name: str
    path: Path


def library_files() -> list[SourceFile]:
    """Return the source files of the running interpreter's own standard library.

    Every machine with this Python must have the same text. These files are therefore left out:
    installed packages; modules that distributions package separately or not at all (tkinter,
    idlelib, turtledemo, lib2to3, distutils, ensurepip, tests); and files generated or patched for
    one machine (_sysconfigdata, config-*, sitecustomize).
    """
    return list(_library_files(Path(sysconfig.get_paths()["stdlib"])))


@lru_cache(maxsize=1)  # a server lists them for each space that is sent, which took 50 ms
def _library_files(root: Path) -> tuple[SourceFile, ...]:
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in _NOT_LIBRARY_FOLDERS and "config-" not in name
        )
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(_NOT_LIBRARY_FILES):
                path = Path(folder, name)
                files.append(SourceFile(path.relative_to(root).as_posix(), path))
    return tuple(files)


def named_files(patterns: Sequence[str]) -> list[SourceFile]:
    """Return the files of paths, folders and patterns: in the order of these, then by name.

    The name of a file is its path relative to the folder, or to the common folder of a pattern's
    matches. Equal file names in different folders therefore stay distinct, and moving the complete
    folder changes no name.

    Raises:
        CorpusError: if a file is missing or of an unknown format, or a folder or pattern holds no
            file of a known format.
    """
    files: dict[str, SourceFile] = {}
    for pattern in map(os.path.expanduser, patterns):
        try:
            matches = list(_matches(pattern))
        except OSError as error:
            raise unreadable(error.filename or pattern, error) from error
        for file in matches:
            files.setdefault(_absolute(file.path), file)
    return _with_unique_names(files)


def is_named(file: SourceFile, patterns: Sequence[str]) -> bool:
    """Return True if the user named the file itself, not a folder or pattern that holds it."""
    return _absolute(file.path) in map(_absolute, patterns)


def _absolute(path: Path | str) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - resolve() follows links


def _matches(pattern: str) -> Iterator[SourceFile]:
    path = Path(pattern)
    if path.is_dir():
        matches = [each for each in _inside(path) if _has_format(each) and each.is_file()]
        root = path
    elif path.exists() or not glob.has_magic(pattern):
        path.stat()  # a missing file is reported as missing, whatever its suffix
        _check_file(path)
        yield SourceFile(path.name, path)
        return
    else:
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns
        matches = [each for each in map(Path, names) if _has_format(each) and each.is_file()]
        root = Path(os.path.commonpath([each.parent for each in matches])) if matches else path
    if not matches:
        raise CorpusError(
            f"data.files: {pattern} holds no {', '.join(FORMATS)} file; check the path"
        )
    for each in sorted(matches):
        yield SourceFile(each.relative_to(root).as_posix(), each)


def _inside(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and its subfolders; raise OSError if one cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)


def _has_format(path: Path) -> bool:
    return format_suffix(path) in FORMATS


def _check_file(path: Path) -> None:
    """Raise CorpusError if a file that the user named cannot be read as any format."""
    suffix = format_suffix(path)
    if not path.is_file():
        raise CorpusError(f"data.files: {path} is not a regular file; copy its contents to one")
    if suffix == NO_SUFFIX:
        if has_nul(path):
            raise CorpusError(
                f"data.files: {path} has no suffix and is read as text, but it holds NUL bytes; "
                f"convert it to UTF-8 text, or add the suffix of its format: {_known_formats()}"
            )
    elif suffix not in FORMATS:
        conversion = _CONVERSIONS.get(suffix)
        if conversion and path.suffix.lower() == suffix:
            message = (
                f"{path} is {suffix[1:].upper()}, which is not read; {conversion.format(path.stem)}"
            )
        else:
            message = (
                f"{path} has no suffix that is known; rename it to .txt if it is plain text, or "
                f"convert it to one of {_known_formats()}"
            )
        raise CorpusError(f"data.files: {message}")


def _known_formats() -> str:
    return f"{', '.join(FORMATS)}, or one of these with {' or '.join(COMPRESSIONS)}"


def _with_unique_names(files: dict[str, SourceFile]) -> list[SourceFile]:
    """Prefix equal names with one more folder each, until all names differ."""
    names = {path: file.name for path, file in files.items()}
    while len(set(names.values())) < len(names):
        count = Counter(names.values())
        for path, name in names.items():
            if count[name] > 1:
                names[path] = "/".join(Path(path).parts[-name.count("/") - 2 :])
    return [file._replace(name=names[path]) for path, file in files.items()]
