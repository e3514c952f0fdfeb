"""States of trials in storage, for a worker whose disk the others do not see.

    {url}/checkpoints/{trial}/{step:09d}.safetensors
    {url}/starts/{sha256}.safetensors              weights that warm-started trials start from

A thread sends each state after its report; training never waits for it. Of a trial only the newest
state waits, and its file is on the disk, so a storage that is slow or down costs no memory. States
of a search that has finished are deleted, but those of the best trials.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import StorageError
from tuner.storage.storage import Storage

CHECKPOINTS = "checkpoints"
STARTS = "starts"
TOKENIZER_FILE = "tokenizer.json"  # its name follows the fingerprint, beside the weights
_SUFFIX = ".safetensors"
_NAME = re.compile(r"[0-9]{9,}\.safetensors")  # of a state
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0
_POLL_SECONDS = 0.25
# A state that another worker has just written is on its way. If that worker is lost, so is the
# state, and the trial trains again from an earlier one.
_SENDING_SECONDS = 3.0
# Then the trial trains again from its beginning, which needs no storage.
_DOWN_SECONDS = 60.0


@dataclass
class _Work:
    """What has to be done for a trial, in this order.

    Attributes:
        is_deleted: True to delete all its states.
        newest: its newest state that was not sent; None if all were.
        pruned: of the states before this step, only the last one is kept,
        needed: and those of these steps.
    """

    is_deleted: bool = False
    newest: Path | None = None
    pruned: int = 0
    needed: Collection[int] = ()


class States:
    """States of the trials of one worker.

    Args:
        url: URL of the search; empty without storage: then the states stay in the home.
        folder: folder of the states in the home, which this node may lack.
        starts: folder of the weights to start from in the home, likewise.

    Attributes:
        has_storage: True if states are sent.
        folder: folder of the states on this node.
        starts: folder of the weights to start from on this node.
    """

    def __init__(self, url: str, folder: Path, starts: Path) -> None:
        self._storage, self.has_storage = Storage(url), bool(url)
        self._temporary: Path | None = None
        self.folder, self.starts = folder, starts
        if self.has_storage and not _is_usable(folder.parent):
            self._temporary = _private_folder(url)
            self.folder, self.starts = self._temporary / CHECKPOINTS, self._temporary / STARTS
        self._works: dict[str, _Work] = {}  # by trial; the first one waits longest
        self._is_sending = False
        self._changed = threading.Condition()
        # steps of the states in storage, of trials trained here
        self._sent: dict[str, set[int]] = {}
        if self.has_storage:
            threading.Thread(target=self._send_all, name="states", daemon=True).start()

    # calls of the worker, which return at once --------------------------------------------------

    def saved(self, trial_id: str, path: Path) -> None:
        """Send a state that is on the disk, instead of an older one of the trial that waits."""
        self._add(trial_id, newest=path)

    def prune(self, trial_id: str, step: int, needed: Collection[int] = ()) -> None:
        """Delete states older than the one before `step`, but those of the steps `needed`."""
        self._add(trial_id, pruned=step, needed=needed)

    def delete(self, trial_id: str) -> None:
        """Delete all states of a trial, and forget what waits for it."""
        self._add(trial_id, is_deleted=True, newest=None, pruned=0)

    def _add(self, trial_id: str, **changes: Any) -> None:
        """Change the work of a trial; the names are those of `_Work`."""
        if self.has_storage:
            with self._changed:
                self._works[trial_id] = replace(self._works.get(trial_id, _Work()), **changes)
                self._changed.notify_all()

    # calls that wait ----------------------------------------------------------------------------

    def fetch_all(self, source: tuple[str, int] | None, start: str | None) -> None:
        """Copy what a trial starts from to this node, if it has none.

        Args:
            source: as for `fetch`; None without a state.
            start: as for `fetch_start`; None to start from random weights.

        Raises:
            StorageError: as `fetch_start`.
        """
        if start is not None:
            self.fetch_start(start)
        if source is not None:
            self.fetch(*source)

    def fetch(self, trial_id: str, step: int) -> None:
        """Copy the newest state of a trial at or before an update to this node, if it has none.

        Returns after a minute at most; what could not be fetched is trained again.
        """
        here = self.folder / trial_id / _file_name(step)
        if here.is_file():
            return
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            try:
                steps = self._steps(trial_id)
                if waited > _SENDING_SECONDS or any(each >= step for each in steps):
                    before = [each for each in steps if each <= step]
                    if before:
                        self._download(trial_id, before[-1])
                    self._sent[trial_id] = self._sent.get(trial_id, set()) | set(steps)
                    return
            except FileNotFoundError:  # it was pruned meanwhile: there is a newer one
                pass
            except (StorageError, OSError):
                if waited > _DOWN_SECONDS:
                    return
            time.sleep(_POLL_SECONDS)

    def fetch_start(self, sha256: str) -> None:
        """Copy the weights that trials start from to this node, if it has none.

        Raises:
            StorageError: if the storage has not answered for a minute.
        """
        name, begun = f"{sha256}{_SUFFIX}", time.monotonic()
        while not (self.starts / name).is_file():
            try:
                self._storage.download(f"{STARTS}/{name}", self.starts / name)
            except FileNotFoundError:
                return  # the engine says that they are missing
            except (StorageError, OSError) as error:
                if time.monotonic() - begun > _DOWN_SECONDS:
                    raise StorageError(str(error)) from error
                time.sleep(_POLL_SECONDS)

    def wait(self, seconds: float) -> int:
        """Wait until all states are sent.

        Args:
            seconds: longest wait.

        Returns:
            Number of trials whose newest state was not sent.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._works or self._is_sending), seconds)
            waiting = sum(work.newest is not None for work in self._works.values())
            return waiting + self._is_sending

    def forget(self) -> None:
        """Delete the states on a node without the home, which other workers of it may share."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _steps(self, trial_id: str) -> list[int]:
        names = self._storage.names(f"{CHECKPOINTS}/{trial_id}")
        steps = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return sorted(int(step) for step in steps if step.isdecimal())

    def _download(self, trial_id: str, step: int) -> None:
        path = self.folder / trial_id / _file_name(step)
        if not path.is_file():
            self._storage.download(f"{CHECKPOINTS}/{trial_id}/{path.name}", path)

    # the thread ---------------------------------------------------------------------------------

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._works))
                trial_id = next(iter(self._works))
                work = self._works.pop(trial_id)
                self._is_sending = True
            try:
                self._send(trial_id, work)
                pause = _FIRST_PAUSE_SECONDS
            except (StorageError, OSError):
                self._put_back(trial_id, work)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send(self, trial_id: str, work: _Work) -> None:
        """Do the work of a trial, and take each part out of it when it is done."""
        folder = f"{CHECKPOINTS}/{trial_id}"
        if work.is_deleted:
            self._storage.delete_folder(folder)
            self._sent.pop(trial_id, None)
            work.is_deleted = False
        sent = self._sent.setdefault(trial_id, set())
        if work.newest is not None and work.newest.is_file():  # it may be pruned or deleted
            self._storage.upload(work.newest, f"{folder}/{work.newest.name}")
            sent.add(int(work.newest.stem))
        work.newest = None
        for step in sorted(step for step in sent if step < work.pruned)[:-1]:
            if step not in work.needed:
                self._storage.delete(f"{folder}/{_file_name(step)}")
                sent.discard(step)

    def _put_back(self, trial_id: str, work: _Work) -> None:
        """Let work that failed wait again, behind that of other trials."""
        with self._changed:
            self._is_sending = False
            newer = self._works.pop(trial_id, None)
            if newer is not None and newer.is_deleted:
                work = newer
            elif newer is not None:
                work.newest = newer.newest or work.newest
                if newer.pruned > work.pruned:
                    work.pruned, work.needed = newer.pruned, newer.needed
            self._works[trial_id] = work


def present_state(reported: str, folder: Path, storage: Storage | None) -> Path | None:
    """Return the file of a state that a report names, from storage if this home lacks it.

    The home may have moved, and the worker may have written the file on another node.

    Args:
        reported: path of the file where it was written.
        folder: folder of the states in the home.
        storage: storage of the search; None without one.

    Returns:
        The file; None if it is nowhere.
    """
    trial, name = Path(reported).parts[-2:]
    path = folder / trial / name
    if not path.is_file() and storage is not None and trial.isdecimal() and _NAME.fullmatch(name):
        with suppress(FileNotFoundError, StorageError, OSError):
            storage.download(f"{CHECKPOINTS}/{trial}/{name}", path)
    return path if path.is_file() else None


def keep_only(storage: Storage, kept: Iterable[Path]) -> None:
    """Delete the states of a search that has finished, but those of some files.

    Raises:
        StorageError: if the storage does not answer, or refuses.
    """
    names = {f"{CHECKPOINTS}/{path.parent.name}/{path.name}" for path in kept}
    storage.delete_all([name for name in storage.files(CHECKPOINTS) if name not in names])


def _file_name(step: int) -> str:
    return f"{step:09d}{_SUFFIX}"


def _is_usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _private_folder(url: str) -> Path:
    """Return a folder of this node for a search, which only this user can enter.

    Workers that share the node, or start again after a fault, find the states of each other.
    """
    name = f"tuner-{os.getuid()}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir(), name)
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        is_private = stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid()
        if stat.S_ISDIR(found.st_mode) and is_private:
            return folder
    return Path(tempfile.mkdtemp(prefix=f"{name}-"))  # somebody else took the name
