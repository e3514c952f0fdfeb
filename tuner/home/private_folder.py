"""Private folders for temporary files, which outlive no process: the next one removes them.

A folder lies where the machine has its temporary files, only its user can enter it, and it holds a
lock. The kernel releases the lock when the process dies, however that is, so what a killed process
leaves is found by its lock. No process id is needed, which another process may have by now.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from model.files import open_regular

_PREFIX = "tuner-"
_LOCK = "lock"
_REMOVE_ATTEMPTS = 20
_REMOVE_SECONDS = 0.1  # between two attempts


@contextmanager
def private_folder(root: Path | None = None, *, keep: bool = False) -> Iterator[Path]:
    """Make a folder, and remove it at the end; first remove those of processes that have died.

    Args:
        root: folder in which it is made; by default that for temporary files.
        keep: True to keep the folder.
    """
    root = root or Path(tempfile.gettempdir())
    for leftover in abandoned(root):
        remove(leftover, attempts=1)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))  # of mode 0700
    # Locked before it has its name: nobody may take the folder for a leftover in between.
    hidden = folder / f".{_LOCK}"
    lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(folder / _LOCK)
        yield folder
    finally:
        if keep:
            (folder / _LOCK).unlink(missing_ok=True)  # without a lock it is no leftover
        else:
            remove(folder)
        os.close(lock)


def lasting_folder() -> Path:
    """Return a private folder that is removed when this process ends."""
    stack = ExitStack()
    folder = stack.enter_context(private_folder())
    atexit.register(stack.close)
    return folder


def abandoned(root: Path | None = None) -> list[Path]:
    """Return the folders of this user whose processes have died.

    Args:
        root: folder in which they lie; by default that for temporary files.
    """
    found = []
    for folder in sorted((root or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*")):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            lock = open_regular(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(folder)
            finally:
                os.close(lock)
    return found


def remove(folder: Path, attempts: int = _REMOVE_ATTEMPTS) -> None:
    """Remove a folder, to which processes that are about to end may still write.

    Its lock goes last: what cannot be removed now is found by it later.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(_REMOVE_SECONDS)
        with suppress(OSError):
            for path in folder.iterdir():
                if path.name == _LOCK:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            if all(path.name == _LOCK for path in folder.iterdir()):
                (folder / _LOCK).unlink(missing_ok=True)
                try:
                    folder.rmdir()
                except OSError:  # something was written in between
                    (folder / _LOCK).touch(mode=0o600)
        if not folder.exists():
            return
