"""Background writer of checkpoints: training does not wait for packing, checksums and disks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from model.checkpoints import checkpoint
from model.device.async_copy import Copied


class WriterLimits(NamedTuple):
    """Memory and threads that a writer may use.

    Attributes:
        max_bytes: most bytes of checkpoints that are not on the disk yet; training waits beyond.
        threads: number of threads that write.
    """

    max_bytes: int
    threads: int


# Checkpoints of a GPU are larger and many come at one time, and most cores of its host are idle.
LIMITS = {"cpu": WriterLimits(2**28, 1), "cuda": WriterLimits(2**32, 4)}


class Snapshot(NamedTuple):
    """Contents of a checkpoint to write.

    Attributes:
        tensors: function that waits for the tensors and returns them.
        metadata: function that makes the metadata; called in the writing thread.
        size: size of the tensors in bytes.
    """

    tensors: Copied
    metadata: Callable[[], Mapping[str, Any]]
    size: int


class PendingWrite:
    """A checkpoint that is being written.

    Args:
        trial_id: id of the trial.
        path: path of the file.
        size: size of the tensors in bytes.
        discarded: is set if the file is not wanted any more.
        future: result of the write: None, or the reason why it failed.
    """

    def __init__(
        self,
        trial_id: str,
        path: Path,
        size: int,
        discarded: threading.Event,
        future: Future[str | None],
    ) -> None:
        self.trial_id, self.path, self.size = trial_id, path, size
        self.discarded, self.future = discarded, future

    @property
    def is_done(self) -> bool:
        """True if the file was written, could not be written, or was cancelled."""
        return self.future.done()

    @property
    def problem(self) -> str | None:
        """Reason why the file could not be written, or None; raises unexpected errors."""
        return None if self.future.cancelled() else self.future.result()


class Writer:
    """Writes checkpoints in threads, started in the order of the calls.

    Only one thread may call its methods.

    Args:
        limits: memory and threads; one checkpoint is accepted whatever its size.
    """

    def __init__(self, limits: WriterLimits) -> None:
        self._max_bytes = limits.max_bytes
        self._threads = ThreadPoolExecutor(limits.threads, "checkpoints")
        self._pending: list[PendingWrite] = []

    @property
    def num_pending(self) -> int:
        """Number of writes and deletions that are not done."""
        return len(self._not_done())

    def save(self, trial_id: str, path: Path, snapshot: Snapshot) -> PendingWrite:
        """Begin to write a checkpoint; wait first while too many bytes are pending."""
        while (
            self.num_pending
            and sum(p.size for p in self._pending) + snapshot.size > self._max_bytes
        ):
            self.wait()
        discarded = threading.Event()
        future = self._threads.submit(_write, path, snapshot, discarded)
        write = PendingWrite(trial_id, path, snapshot.size, discarded, future)
        self._pending.append(write)
        return write

    def discard(self, write: PendingWrite) -> None:
        """Cancel a write, or delete its file once it is done; does not wait.

        A write is in one of three states. It has not begun: it is cancelled. It is running: it
        sees `discarded` before the file gets its name, unless it has just passed this check. For
        that case, and if it is done, the deletion runs after it.
        """
        if not write.future.cancel():
            write.discarded.set()
            deletion = self._threads.submit(_delete, write)
            self._pending.append(
                PendingWrite(write.trial_id, write.path, 0, write.discarded, deletion)
            )

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the oldest pending write is done, at most for some seconds."""
        wait([write.future for write in self._not_done()[:1]], seconds)

    def wait_for(self, trial_id: str) -> None:
        """Wait until no write of a trial is pending."""
        wait([write.future for write in self._not_done() if write.trial_id == trial_id])

    def _not_done(self) -> list[PendingWrite]:
        self._pending = [write for write in self._pending if not write.is_done]
        return self._pending


def _write(path: Path, snapshot: Snapshot, discarded: threading.Event) -> str | None:
    """Write a checkpoint; return the reason if it failed. A full disk does not end the training."""
    tensors, metadata = snapshot.tensors(), snapshot.metadata()
    try:
        was_written = checkpoint.write(path, tensors, metadata, lambda: not discarded.is_set())
    except MemoryError:
        return "out of memory"
    except OSError as error:
        return error.strerror or str(error)
    return None if was_written else "it was discarded"


def _delete(write: PendingWrite) -> str | None:
    """Wait for a write; delete its file if it was written nevertheless.

    A file that the write did not make is left alone: another worker may resume the trial and write
    a file of this name soon.
    """
    if write.future.exception() is None and write.future.result() is None:
        with contextlib.suppress(OSError):
            write.path.unlink(missing_ok=True)
    return None
