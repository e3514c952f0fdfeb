"""Files of folders that somebody else may have filled: opened without links, written as a whole.

Whoever may write to a folder can lay a link to a file of somebody else, or a pipe, which waits for
ever, where a known name is about to be opened: `open_regular` takes neither. A file is written as a
whole under a temporary name that nobody can guess, made with mode "x" or by mkdir, which follow no
link, and with the permissions of the umask.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LINK = "is a link, which tuner does not follow; replace it by what it leads to"


class NotRegular(OSError):  # noqa: N818 - the name states the problem
    """A path is a link, or no regular file; the text is a sentence that names it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(errno.ELOOP, problem)
        self._text = f"{path} {problem}"

    def __str__(self) -> str:
        return self._text


def open_regular(path: Path, flags: int = os.O_RDONLY, *, below: Path | None = None) -> int:
    """Open a regular file, never by a link, and return its descriptor.

    Args:
        path: path of the file.
        flags: flags of `os.open`.
        below: folder of the path; no folder between the two may be a link either.

    Raises:
        NotRegular: if the path is a link, a pipe, a folder or a device.
        OSError: if it cannot be opened.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        if below is None:
            handle = os.open(path, flags, 0o666)
        else:
            handle = _open_below(below, path.relative_to(below).parts, flags)
    except NotRegular:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegular(path, LINK) from error
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a pipe without a reader, a folder
            raise NotRegular(path, "is no regular file; delete it") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotRegular(path, "is no regular file; delete it")
    return handle


def _open_below(folder: Path, parts: tuple[str, ...], flags: int) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            folder /= part
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            except NotADirectoryError as error:
                problem = "is a link or no folder, which tuner does not enter; make it a folder"
                raise NotRegular(folder, problem) from error
            os.close(handle)
            handle = inner
        return os.open(parts[-1], flags, 0o666, dir_fd=handle)
    finally:
        os.close(handle)


def hidden_name(path: Path) -> Path:
    """Return a new hidden path beside a path, for what will be renamed to the path."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces the file at a path when the block ends without an error."""
    temporary = hidden_name(path)
    opened = temporary.open("xb")
    try:
        with opened as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
