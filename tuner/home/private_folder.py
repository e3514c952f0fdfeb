"""Private folders for temporary files, which outlive no process: the next one removes them.

A folder lies where the machine has its temporary files, only its user can enter it, and it holds a
lock. The kernel releases the lock when the process dies, however that is, so what a killed process
leaves is found by its lock. No process id is needed, which another process may have by now. Ray's
dying processes may make the folder again after it was removed, without a lock: such a folder is
found by what it holds and by its age.
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
_LOCK, _KEPT = "lock", "kept"
_OF_RAY = "ray"  # in the folder of a Ray session
_SESSION = frozenset({_OF_RAY, "token"})  # all that such a folder holds beside the lock
_IDLE_SECONDS = 3600.0  # age of a folder without a lock from which on no process writes there
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
            (folder / _LOCK).replace(folder / _KEPT)  # so it is no leftover
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
            if _has_lost_its_lock(folder, status):
                found.append(folder)
                continue
            lock = open_regular(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(folder)
            finally:
                os.close(lock)
    return found


def _has_lost_its_lock(folder: Path, status: os.stat_result) -> bool:
    """Return True for an old folder of a Ray session that has no lock, and that nobody keeps."""
    names = set(os.listdir(folder))  # noqa: PTH208 - names, not paths
    age = time.time() - status.st_mtime
    return _OF_RAY in names and names <= _SESSION and age > _IDLE_SECONDS


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
