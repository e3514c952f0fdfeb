"""Private folder of one Ray session: sockets, logs and token; removed when the session ends.

Ray makes its own folders writable for everybody, so they lie in a folder that only this user can
enter. A driver that is killed leaves its folder behind; the next session removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "tuner-"
_LOCK = "lock"
# Ray appends this to the folder, and the path of a Unix socket has a limit, which includes a NUL.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
_LONGEST_ROOT = (104 if sys.platform == "darwin" else 108) - len(f"/{_PREFIX}12345678{_SOCKET}0")
_REMOVE_ATTEMPTS = 20
_REMOVE_SECONDS = 0.1  # between two attempts


@contextmanager
def ray_folder(*, keep: bool = False) -> Iterator[Path]:
    """Make a folder for a Ray session, and remove it at the end.

    Args:
        keep: True to keep the folder, with Ray's logs.
    """
    root = _root()
    _remove_leftovers(root)
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


def _root() -> Path:
    """Return the folder for temporary files; /tmp where its path is too long for sockets."""
    root = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    return root if len(os.fsencode(root)) <= _LONGEST_ROOT else Path("/tmp")


def remove(folder: Path, attempts: int = _REMOVE_ATTEMPTS) -> None:
    """Remove a folder, to which processes that are about to end may still write."""
    for _ in range(attempts):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_REMOVE_SECONDS)


def _remove_leftovers(root: Path) -> None:
    """Remove the folders of this user whose drivers have died.

    The kernel releases the lock of a driver with its process, so that no process id is needed,
    which another process may have by now.
    """
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
