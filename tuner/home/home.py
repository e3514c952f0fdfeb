"""Home folder of a user's searches, and the MLflow store in it or elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model.files import NotRegular, open_regular, read_regular, replacing
from tuner.errors import JournalError, RecordError, StoreError
from tuner.home.artifact_locations import (
    check_locations,
    copy_database,
    correct_locations,
    former_homes,
)
from tuner.home.formats import FORMAT, newer
from tuner.home.names import check_name, is_name
from tuner.home.private_folder import lasting_folder

DEFAULT_HOME = "runs"
_STORE = "mlflow.db"
_FORMAT = "format"  # file that holds the format of the home
_SQLITE = "sqlite:///"
_PRIVATE = 0o700  # mode of a folder that only its user may enter

Say = Callable[[str], None]


def _warn(message: str) -> None:
    logging.getLogger("tuner").warning(message)


@dataclass(frozen=True)
class Home:
    """Folder of all searches.

    Attributes:
        root: absolute path of the folder.
        tracking_uri: URI of the MLflow store: MLFLOW_TRACKING_URI, or a SQLite file in the folder.
        is_copy: True if the store is a temporary copy, only to be read.
    """

    root: Path
    tracking_uri: str
    is_copy: bool = False

    @classmethod
    def of(cls, path: str | Path | None = None) -> Home:
        """Return the home at a path, at TUNER_HOME, or at ./runs; the folder need not exist."""
        root = Path(path or os.environ.get("TUNER_HOME") or DEFAULT_HOME).absolute()
        return cls(root, os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{root}/{_STORE}")

    @classmethod
    def at(cls, path: str | Path | None = None, say: Say = _warn, *, create: bool = True) -> Home:
        """Return the home at a path, at TUNER_HOME, or at ./runs, to write to it.

        Args:
            path: the folder.
            say: called with one sentence if the home has moved and its store was corrected.
            create: create the folder if it is missing.

        Raises:
            RecordError: if there is no home, and none is to be created.
            StoreError: if the folder cannot be created or written, a newer version of tuner made
                it, or its artifacts are elsewhere.
        """
        home = cls.of(path)
        root = home.root
        if not create:
            home._check_exists()
        if home._has_odd_path:
            raise StoreError(f"the path {root} has one of % ? # in it; choose another --home")
        try:
            root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder {root}: {error.strerror}; choose another with --home"
            ) from error
        if not os.access(root, os.W_OK):
            raise StoreError(f"cannot write to the folder {root}; choose another with --home")
        home._check_format()
        home._check_store()
        home._write_format()
        if not home.is_local or not home.has_store:
            return home
        formers = former_homes(root / _STORE, root)
        if formers and home._is_in_use():
            raise StoreError(
                f"the home {root} was recorded at {formers[0]}, and a search runs in it; wait "
                f"for it to end, or name the home as that search does"
            )
        return home._corrected(formers, say)

    @classmethod
    def recorded(cls, path: str | Path | None = None, say: Say = _warn) -> Home:
        """Return the home at a path, at TUNER_HOME, or at ./runs, to read its searches.

        Args:
            path: the folder.
            say: called with one sentence if the home has moved and its store was corrected.

        Raises:
            RecordError: if there is no home; nothing is created.
            StoreError: if the store cannot be read, or its artifacts are elsewhere.
        """
        home = cls.of(path)
        home._check_exists()
        home._check_format()
        home._check_store()
        return home.readable(say)

    def readable(self, say: Say = _warn) -> Home:
        """Return this home with a store whose artifacts can be read, also after the home moved.

        A home gets a temporary copy of its store if it cannot be written, if a search of another
        process uses it at its former place, or if MLflow cannot open its path.

        Args:
            say: called with one sentence if the home has moved and its store was corrected.

        Raises:
            StoreError: if the store cannot be read, or its artifacts are elsewhere.
        """
        root = self.root
        if not self.is_local or not self.has_store:
            return self
        formers = former_homes(root / _STORE, root)
        is_writable = os.access(root, os.W_OK) and os.access(root / _STORE, os.W_OK)
        if is_writable and not self._has_odd_path and not (formers and self._is_in_use()):
            return self._corrected(formers, say)
        folder = lasting_folder()
        copy_database(root / _STORE, folder / _STORE)
        correct_locations(folder / _STORE, root)
        check_locations(folder / _STORE, root)
        return replace(self, tracking_uri=f"{_SQLITE}{folder}/{_STORE}", is_copy=True)

    def set_umask(self) -> None:
        """Let files that this process makes have the permissions of the folder, or fewer.

        A folder that its group may write is of a team: what one makes, the others may change,
        whatever the umask. In any other folder the umask may only become stricter, and it stays if
        the store may be in another folder: others may need its files, and the home is closed.
        """
        mode = self.root.stat().st_mode if self.root.is_dir() else _PRIVATE
        if mode & stat.S_IWGRP:
            os.umask(~mode & 0o077)
        elif self.is_local or self.tracking_uri.startswith("http"):
            os.umask(os.umask(0o077) | (~mode & 0o077))

    def _check_store(self) -> None:
        """Raise StoreError if the store is no file: opening a pipe would wait for ever."""
        path = self.root / _STORE
        if self.is_local and path.exists() and not path.is_file():
            raise StoreError(f"{path} is no regular file; delete it")

    def _check_exists(self) -> None:
        """Raise RecordError if the store should be in the folder, and there was no search yet."""
        if self.is_local and not self.has_store and not (self.root / "searches").is_dir():
            reason = f"it has no {_STORE}" if self.root.is_dir() else "there is no such folder"
            raise RecordError(
                f"no search is recorded in {self.root}: {reason}; start one with 'tuner search', "
                f"or name the folder of your searches with --home"
            )

    def _check_format(self) -> None:
        """Raise StoreError if a newer version of tuner made the home."""
        if not (text := self._format()):
            return
        number = int(text) if text.isdecimal() else text[:20]
        if refusal := newer(f"the home {self.root}", number):
            raise StoreError(refusal)

    def _format(self) -> str:
        """Return the mark of the home; empty if an earlier version made it, or a disk was full."""
        with contextlib.suppress(OSError):
            text = read_regular(self.root / _FORMAT).decode(errors="replace")
            return text.strip("\0 \t\r\n")  # NULs: of a power failure
        return ""

    def _write_format(self) -> None:
        """Mark the home with its format, unless it has a mark."""
        if not self._format():
            with contextlib.suppress(OSError), replacing(self.root / _FORMAT, durable=True) as file:
                file.write(f"{FORMAT}\n".encode())

    @property
    def _has_odd_path(self) -> bool:
        """True if the URI of the store would mean another path."""
        return any(character in str(self.root) for character in "%?#")

    def _corrected(self, formers: list[Path], say: Say) -> Home:
        """Correct and check the locations of artifacts in the store."""
        database = self.root / _STORE
        if formers and (count := correct_locations(database, self.root)):
            say(
                f"the home {self.root} was at {formers[0]} before: corrected {count} paths in its "
                f"{_STORE}"
            )
        check_locations(database, self.root)
        return self

    def _is_in_use(self) -> bool:
        """Return True if a process runs a search in this home: it has locked the journal."""
        return any(is_locked(folder / "lock") for folder in self.searches())

    @property
    def is_local(self) -> bool:
        """True if the MLflow store is in the folder."""
        if not self.tracking_uri.startswith(_SQLITE):
            return False
        database = Path(self.tracking_uri.removeprefix(_SQLITE)).absolute()
        return database == self.root / _STORE or database.resolve() == (
            (self.root / _STORE).resolve()
        )

    @property
    def has_store(self) -> bool:
        """True if the MLflow store of the folder exists."""
        return (self.root / _STORE).is_file()

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts of the local store."""
        return self.root / "artifacts"

    @property
    def corpora(self) -> Path:
        """Folder of the prepared corpora."""
        return self.root / "corpora"

    @property
    def starts(self) -> Path:
        """Folder of the checkpoints that trials start from, and their tokenizers."""
        return self.root / "starts"

    @property
    def calibration(self) -> Path:
        """Path of the measurements of devices: slots of a GPU, gain of bfloat16 on a CPU."""
        return self.root / "calibration.json"

    def search(self, name: str) -> Path:
        """Return the folder of one search: its checkpoints while it runs, and Ray Tune's files.

        Raises:
            RecordError: if the name, which a store may have from anybody, is a path.
        """
        return self.root / "searches" / (check_name(name) if name else "")

    def searches(self) -> list[Path]:
        """Return the folders of all searches, by name.

        What cannot be the folder of a search is left out: others may write to the home of a team,
        and file systems have folders of their own, such as `.snapshot`.
        """
        folder = self.root / "searches"
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [p for p in paths if is_name(p.name) and p.is_dir() and not p.is_symlink()]

    def log(self, name: str) -> Path:
        """Return the path of what the drivers of a submitted search have printed."""
        return self.root / "logs" / f"{check_name(name)}.log"

    def open_log(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open the log of a search, as `open_regular` does, and return its descriptor."""
        return open_regular(self.log(name), flags, below=self.root)


def open_file(path: Path, flags: int) -> int:
    """Open a file of a search, which must not be a link.

    Raises:
        JournalError: if the path is a link, or no regular file.
    """
    try:
        return open_regular(path, flags)
    except NotRegular as error:
        raise JournalError(str(error)) from error


def is_locked(path: Path) -> bool:
    """Return True if a process holds the lock of a file; False if it cannot be opened."""
    try:
        handle = open_regular(path)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(handle)
    return False
