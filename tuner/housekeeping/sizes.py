"""Sizes of files and folders, as numbers and as texts."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from tuner.errors import StoreError


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links are not followed."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    total = 0
    for file in paths:
        with contextlib.suppress(OSError):  # another process may delete it meanwhile
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


def remove(path: Path) -> None:
    """Delete a file or a folder, unless it is gone already.

    Raises:
        StoreError: if it cannot be deleted.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"cannot delete {error.filename or path}: {error.strerror}; delete it yourself, or "
            "repeat the command when the cause is gone"
        ) from error
