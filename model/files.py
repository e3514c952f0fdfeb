"""Files of folders that somebody else may have filled: opened without links, written as a whole.

Whoever may write to a folder can lay a link to a file of somebody else, or a pipe, which waits for
ever, where a known name is about to be opened: `open_regular` takes neither. A file is written as a
whole under a temporary name that nobody can guess, made with mode "x" or by mkdir, which follow no
link, and with the permissions of the umask.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def read_regular(path: Path, most: int = 1 << 28) -> bytes:
    """Return the bytes of a regular file, which `open_regular` opens.

    Args:
        path: path of the file.
        most: number of bytes that a sound file has at most.

    Raises:
        NotRegular, OSError: as `open_regular`, or if the file is larger.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return data


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
def replacing(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file that replaces the file at a path when the block ends without an error.

    Args:
        path: path of the file; a link there is replaced, not followed.
        mode: permissions of the file, less those that the umask takes.
        durable: True to return only when the disk has it, also after a power failure.

    Raises:
        OSError: if it cannot be written, as on a full disk; the path then has what it had.
    """
    temporary = hidden_name(path)
    opened = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))
    try:
        with opened as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of a folder survive a power failure, on systems that can sync folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def unfinished(folder: Path, name: str = "", seconds: float = 3600.0) -> list[Path]:
    """Return the hidden files and folders that killed processes left in a folder, in order.

    Args:
        folder: the folder.
        name: what they were to become; empty for anything.
        seconds: time since which nothing was written to them: a process may live until then.
    """
    hidden = re.compile(rf"\.{re.escape(name) or '.+'}\.[0-9a-f]{{8}}")
    with suppress(OSError):
        found = [path for path in sorted(folder.iterdir()) if hidden.fullmatch(path.name)]
        return [path for path in found if time.time() - _newest(path) > seconds]
    return []


def _newest(path: Path) -> float:
    """Return when something was last written to a file, or to a folder and what is in it."""
    is_folder = path.is_dir() and not path.is_symlink()
    paths = (path, *path.rglob("*")) if is_folder else (path,)
    return max(float(each.lstat().st_mtime) for each in paths)
