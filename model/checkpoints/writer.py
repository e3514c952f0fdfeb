"""Threads that save states, so that training does not wait for packing, checksums and disks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from model.checkpoints import checkpoint
from model.device.async_copy import Copied


class Limits(NamedTuple):
    """What saving may take.

    Attributes:
        most_bytes: of states that are not on the disk yet; beyond that, training waits.
        threads: that write at one time.
    """

    most_bytes: int
    threads: int


# The states of a GPU are larger and come together, and other cores than the engine's are idle.
LIMITS = {"cpu": Limits(2**28, 1), "cuda": Limits(2**32, 4)}


class Snapshot(NamedTuple):
    """What is saved.

    Attributes:
        tensors: waits for them, and returns them.
        about: what they are; made where they are written.
        size: of the tensors, in bytes.
    """

    tensors: Copied
    about: Callable[[], Mapping[str, Any]]
    size: int


class PendingWrite:
    """A state on its way to the disk.

    Args:
        trial_id: whose state it is.
        path: where to.
        size: in bytes.
        unwanted: is set if it shall not lie there in the end.
        future: what came of it: None, or why it was not saved.
    """

    def __init__(
        self,
        trial_id: str,
        path: Path,
        size: int,
        unwanted: threading.Event,
        future: Future[str | None],
    ) -> None:
        self.trial_id, self.path, self.size = trial_id, path, size
        self.unwanted, self.future = unwanted, future

    @property
    def is_done(self) -> bool:
        """Whether it lies there, or could not be saved, or was cancelled."""
        return self.future.done()

    @property
    def problem(self) -> str | None:
        """Why it could not be saved, if it could not; what else went wrong there is raised."""
        return None if self.future.cancelled() else self.future.result()


class Writer:
    """Saves states, beginning in the order in which they come; used by one thread.

    Args:
        limits: what it may take; one state is taken however large it is.
    """

    def __init__(self, limits: Limits) -> None:
        self._most_bytes = limits.most_bytes
        self._threads = ThreadPoolExecutor(limits.threads, "states")
        self._under_way: list[PendingWrite] = []

    @property
    def load(self) -> int:
        """How much is under way."""
        return len(self._open())

    def save(self, trial_id: str, path: Path, content: Snapshot) -> PendingWrite:
        """Take a state; waits first while too much is under way."""
        while self.load and sum(s.size for s in self._under_way) + content.size > self._most_bytes:
            self.wait()
        unwanted = threading.Event()
        future = self._threads.submit(_write, path, content, unwanted)
        saving = PendingWrite(trial_id, path, content.size, unwanted, future)
        self._under_way.append(saving)
        return saving

    def discard(self, saving: PendingWrite) -> None:
        """Have no such state in the end; nobody waits for that."""
        if not saving.future.cancel():
            saving.unwanted.set()
            deletion = self._threads.submit(_delete, saving)
            self._under_way.append(
                PendingWrite(saving.trial_id, saving.path, 0, saving.unwanted, deletion)
            )

    def wait(self, seconds: float | None = None) -> None:
        """Return when what has been under way longest is done, or after some time."""
        wait([saving.future for saving in self._open()[:1]], seconds)

    def wait_for(self, trial_id: str) -> None:
        """Return when nothing of a trial is under way."""
        wait([saving.future for saving in self._open() if saving.trial_id == trial_id])

    def _open(self) -> list[PendingWrite]:
        self._under_way = [saving for saving in self._under_way if not saving.is_done]
        return self._under_way


def _write(path: Path, content: Snapshot, unwanted: threading.Event) -> str | None:
    """What kept a state from being saved: a full disk does not end the training."""
    tensors, about = content.tensors(), content.about()
    try:
        is_there = checkpoint.write(path, tensors, about, lambda: not unwanted.is_set())
    except MemoryError:
        return "out of memory"
    except OSError as error:
        return error.strerror or str(error)
    return None if is_there else "it was not wanted any more"


def _delete(saving: PendingWrite) -> str | None:
    """If it was written all the same; by the same name another worker may write one soon."""
    if saving.future.exception() is None and saving.future.result() is None:
        with contextlib.suppress(OSError):
            saving.path.unlink(missing_ok=True)
    return None
