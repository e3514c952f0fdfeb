"""The lock of a search's folder, which the kernel ends with its process however that dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from model.files import hidden_name
from tuner.home.home import open_file

LOCK = "lock"
_ATTEMPTS, _PAUSE_SECONDS = 3, 0.05


class Lock:
    """The lock of a folder, which this process has now unless another has it; to be closed.

    Args:
        folder: folder of the search.

    Attributes:
        is_ours: True if this process has it.
        is_taken: True if another process has it; neither is so if the file system has no locks.
        path: path of its file, which names the process that has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.is_ours = self.is_taken = False
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.close()
                time.sleep(_PAUSE_SECONDS)  # `is_running` may hold the lock for an instant
            self._file = open_file(self.path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                return
            if os.path.samestat(os.fstat(self._file), self.path.stat()):
                self.is_ours = True
                return  # else a new lock has replaced it
        self.is_taken = True

    @property
    def pid(self) -> str:
        """The process id that the lock names; empty if it names none."""
        return os.pread(self._file, 20, 0).decode(errors="replace").strip()

    def write_pid(self) -> None:
        """Let the lock name this process."""
        with suppress(OSError):  # the disk may be full; the lock holds without the id
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def replace(self) -> None:
        """Replace the lock by another one, which this process has; leave the old one to its driver.

        Raises:
            OSError: if it cannot be replaced.
        """
        path = hidden_name(self.path)
        file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.close()
        self._file = file
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.replace(self.path)

    def close(self) -> None:
        """Let other processes have the lock."""
        os.close(self._file)
